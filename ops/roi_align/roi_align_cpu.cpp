// RoI Align: for each bin a weighted sum of pixels, vectorised over channels (channels_last).
#include "ops/roi_align/geometry.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kWorkers = 32;  // pieces of work; each has its own tables

// One bin: rows of pixels in y, up to four columns at a time.
void pool_bin(float* y, const float* map, std::int64_t width, std::int64_t channels,
              const Taps& rows, std::int64_t p, const Taps& columns, std::int64_t q) {
  const std::int32_t* in_y = rows.index + p * rows.capacity;
  const std::int32_t* in_x = columns.index + q * columns.capacity;
  const float* wy = rows.weight + p * rows.capacity;
  const float* wx = columns.weight + q * columns.capacity;
  bool first = true;
  for (std::int32_t i = 0; i < rows.count[p]; ++i) {
    const float* row = map + in_y[i] * width * channels;
    for (std::int32_t j = 0; j < columns.count[q]; j += 4) {
      const std::int32_t n = std::min(4, columns.count[q] - j);
      const float* source[4];
      float weight[4];
      for (std::int32_t k = 0; k < n; ++k) {
        source[k] = row + in_x[j + k] * channels;
        weight[k] = wy[i] * wx[j + k];
      }
      if (first) {
        combine<false>(y, source, weight, n, channels);
      } else {
        combine<true>(y, source, weight, n, channels);
      }
      first = false;
    }
  }
  if (first) std::fill(y, y + channels, 0.f);
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
