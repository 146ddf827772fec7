// Sum over batch and pixels for each channel: the gradient of a convolution's bias.
//
// The pixels are cut into a fixed number of chunks, each summed into its own row of the workspace:
// the result does not depend on the number of threads. Inside a chunk, blocks of pixels are summed
// from zero and then added, so that errors grow with the number of blocks and not of pixels.
#include <algorithm>
#include <cstring>

#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kChunks = 16, kBlock = 64;

// workspace: kChunks rows of totals, kChunks rows for the running block
std::size_t workspace_channel_sum(const Call& call) {
  return std::size_t(2 * kChunks * call.in(0).dim(1)) * sizeof(float);
}

void sum_last(const float* x, float* total, float* block, std::int64_t begin, std::int64_t end,
              std::int64_t channels) {
  std::fill(total, total + channels, 0.f);
  for (std::int64_t p = begin; p < end; p += kBlock) {
    std::fill(block, block + channels, 0.f);
    for (std::int64_t q = p; q < std::min(end, p + kBlock); ++q) {
      const float* row = x + q * channels;
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) block[c] += row[c];
    }
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) total[c] += block[c];
  }
}

Launch bind_channels_last(const Call& call) {
  const std::int64_t channels = call.in(0).dim(1);
  const std::int64_t pixels = call.in(0).dim(0) * call.in(0).dim(2) * call.in(0).dim(3);
  const float* x = call.in(0).data<float>();
  float* y = call.out().data<float>();
  float* rows = static_cast<float*>(call.workspace.pointer);
  return [=](Stream&) {
    parallel_for(kChunks, std::max<std::int64_t>(1, kChunks * 16384 / (pixels * channels + 1)),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t i = begin; i < end; ++i) {
                     sum_last(x, rows + i * channels, rows + (kChunks + i) * channels,
                              pixels * i / kChunks, pixels * (i + 1) / kChunks, channels);
                   }
                 });
    std::memcpy(y, rows, std::size_t(channels) * sizeof(float));
    for (std::int64_t i = 1; i < kChunks; ++i) {
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) y[c] += rows[i * channels + c];
    }
  };
}

Launch bind_rows(const Call& call) {
  const std::int64_t batch = call.in(0).dim(0), channels = call.in(0).dim(1);
  const std::int64_t pixels = call.in(0).dim(2) * call.in(0).dim(3);
  const float* x = call.in(0).data<float>();
  float* y = call.out().data<float>();
  return [=](Stream&) {
    const std::int64_t grain = std::max<std::int64_t>(1, 16384 / (batch * pixels + 1));
    parallel_for(channels, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t c = begin; c < end; ++c) {
        float total = 0;
        for (std::int64_t n = 0; n < batch; ++n) {
          const float* plane = x + (n * channels + c) * pixels;
          for (std::int64_t p = 0; p < pixels; p += kBlock * 16) {
            const std::int64_t stop = std::min(pixels, p + kBlock * 16);
            float block = 0;
#pragma omp simd reduction(+ : block)
            for (std::int64_t q = p; q < stop; ++q) block += plane[q];
            total += block;
          }
        }
        y[c] = total;
      }
    });
  };
}

Launch bind_channel_sum(const Call& call) {
  const bool last = call.in(0).layout == Layout::kChannelsLast;
  return last ? bind_channels_last(call) : bind_rows(call);
}

}  // namespace

MB_KERNEL("channel_sum", Device::kCpu, bind_channel_sum, workspace_channel_sum)

}  // namespace mb::MB_ISA
