// RoI Align: for each bin a weighted sum of pixels, vectorised over channels (channels_last).
#include "ops/roi_align/geometry.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kWorkers = 32;  // pieces of work; each has its own tables

// Up to 16 pixels that are summed together: where they lie in the map, and their weights.
struct Reads {
  static constexpr int kMost = 16;
  std::int64_t at[kMost];
  float weight[kMost];
  int size = 0;
};

// kWidth channels of y (+)= the weighted sum of the pixels; the sums stay in registers.
template <int kWidth>
void sum_lanes(float* y, const float* map, const Reads& reads, bool add) {
  alignas(64) float total[kWidth];
  for (int c = 0; c < kWidth; ++c) total[c] = add ? y[c] : 0.f;
  for (int t = 0; t < reads.size; ++t) {
    const float* x = map + reads.at[t];
    const float w = reads.weight[t];
#pragma omp simd
    for (int c = 0; c < kWidth; ++c) total[c] += w * x[c];
  }
  for (int c = 0; c < kWidth; ++c) y[c] = total[c];
}

void sum_pixels(float* y, const float* map, std::int64_t channels, const Reads& reads, bool add) {
  std::int64_t c = 0;
  for (; c + 64 <= channels; c += 64) sum_lanes<64>(y + c, map + c, reads, add);
  for (; c + 16 <= channels; c += 16) sum_lanes<16>(y + c, map + c, reads, add);
  for (; c < channels; ++c) sum_lanes<1>(y + c, map + c, reads, add);
}

// One bin: every row of pixels with every column.
void pool_bin(float* y, const float* map, std::int64_t width, std::int64_t channels,
              const Taps& rows, std::int64_t p, const Taps& columns, std::int64_t q) {
  const std::int32_t* in_y = rows.index + p * rows.capacity;
  const std::int32_t* in_x = columns.index + q * columns.capacity;
  const float* wy = rows.weight + p * rows.capacity;
  const float* wx = columns.weight + q * columns.capacity;
  Reads reads;
  bool add = false;
  for (std::int32_t i = 0; i < rows.count[p]; ++i) {
    for (std::int32_t j = 0; j < columns.count[q]; ++j) {
      if (reads.size == Reads::kMost) {
        sum_pixels(y, map, channels, reads, add);
        add = true;
        reads.size = 0;
      }
      reads.at[reads.size] = (in_y[i] * width + in_x[j]) * channels;
      reads.weight[reads.size++] = wy[i] * wx[j];
    }
  }
  sum_pixels(y, map, channels, reads, add);  // without pixels: zeros
}

std::size_t workspace_roi_align(const Call& call) {
  const Pooling pooling(call.attrs);
  return kWorkers * TapStore(pooling, call.inputs.first(call.inputs.size() - 2)).bytes();
}

Launch bind_roi_align(const Call& call) {
  const Pooling pooling(call.attrs);
  const std::size_t levels = call.inputs.size() - 2;
  const TapStore store(pooling, call.inputs.first(levels));
  const std::vector<Tensor> features(call.inputs.begin(), call.inputs.begin() + levels);
  for (const Tensor& f : features) {
    require(f.layout == Layout::kChannelsLast, "feature maps must be channels_last");
  }
  require(call.out().layout == Layout::kChannelsLast, "the output must be channels_last");
  const float* rois = call.in(levels).data<float>();
  const std::int32_t* count = call.in(levels + 1).data<std::int32_t>();
  const std::int64_t total = call.in(levels).dim(0) * call.in(levels).dim(1);
  const std::int64_t per_image = call.in(levels).dim(1), channels = features[0].dim(1);
  float* y = call.out().data<float>();
  char* memory = static_cast<char*>(call.workspace.pointer);
  return [=](Stream&) {
    parallel_each(std::min(kWorkers, total), [&](std::int64_t worker) {
      const Taps rows = store.taps(memory + worker * store.bytes(), 0);
      const Taps columns = store.taps(memory + worker * store.bytes(), 1);
      const std::int64_t bins = pooling.bins[0] * pooling.bins[1];
      for (std::int64_t item = worker; item < total; item += kWorkers) {
        float* target = y + item * bins * channels;
        if (item % per_image >= count[item / per_image]) {
          std::fill(target, target + bins * channels, 0.f);
          continue;
        }
        const Region region = pooling.region_of(rois + 4 * item);
        const Tensor& f = features[region.level];
        pooling.fill(region, 0, f.dim(2), rows);
        pooling.fill(region, 1, f.dim(3), columns);
        const float* map = f.data<float>() + item / per_image * f.dim(2) * f.dim(3) * channels;
        for (std::int64_t p = 0; p < pooling.bins[0]; ++p) {
          for (std::int64_t q = 0; q < pooling.bins[1]; ++q, target += channels) {
            pool_bin(target, map, f.dim(3), channels, rows, p, columns, q);
          }
        }
      }
    });
  };
}

}  // namespace

MB_KERNEL("roi_align", Device::kCpu, bind_roi_align, workspace_roi_align)

}  // namespace mb::MB_ISA
