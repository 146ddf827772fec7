// For each bin of each box a weighted sum of pixels, vectorised over channels (channels_last).
#include "ops/roi_pooling/precise.h"

namespace mb::MB_ISA {
namespace {

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

template <typename Method>
TapStore store_of(const Call& call) {
  const std::size_t levels = call.attrs.reals("scales").size();
  return TapStore(Method(call.attrs), call.attrs.integers("size").data(),
                  call.inputs.first(levels));
}

template <typename Method>
std::size_t workspace_pooling(const Call& call) {
  return kWorkers * store_of<Method>(call).bytes();
}

template <typename Method>
Launch bind_pooling(const Call& call) {
  const Method method(call.attrs);
  const TapStore store = store_of<Method>(call);
  const std::size_t levels = call.attrs.reals("scales").size();
  const Boxes boxes(call, levels);
  const std::vector<Tensor> features(call.inputs.begin(), call.inputs.begin() + levels);
  require_channels_last(features);
  require(call.out().layout == Layout::kChannelsLast, "the output must be channels_last");
  const std::int64_t down = call.out().dim(2), across = call.out().dim(3);
  const std::int64_t channels = features[0].dim(1);
  float* y = call.out().data<float>();
  char* memory = static_cast<char*>(call.workspace.pointer);
  return [=](Stream&) {
    const std::int64_t total = boxes.total(), size = down * across * channels;
    parallel_each(std::min(kWorkers, total), [&](std::int64_t worker) {
      const Taps rows = store.taps(memory + worker * store.bytes(), 0);
      const Taps columns = store.taps(memory + worker * store.bytes(), 1);
      for (std::int64_t item = worker; item < total; item += kWorkers) {
        float* target = y + item * size;
        const Region region = boxes.region(method, item);
        if (region.level < 0) {
          std::fill(target, target + size, 0.f);
          continue;
        }
        const Tensor& f = features[region.level];
        method.fill(region, 0, down, f.dim(2), rows);
        method.fill(region, 1, across, f.dim(3), columns);
        const std::int64_t image = Method::kOwnMaps ? item : item / boxes.per_image;
        const float* map = f.data<float>() + image * f.dim(2) * f.dim(3) * channels;
        for (std::int64_t p = 0; p < down; ++p) {
          for (std::int64_t q = 0; q < across; ++q, target += channels) {
            pool_bin(target, map, f.dim(3), channels, rows, p, columns, q);
          }
        }
      }
    });
  };
}

}  // namespace

MB_KERNEL("roi_align", Device::kCpu, bind_pooling<Align>, workspace_pooling<Align>)
MB_KERNEL("roi_avg_pool", Device::kCpu, bind_pooling<Average>, workspace_pooling<Average>)
MB_KERNEL("prroi_pool", Device::kCpu, bind_pooling<Precise>, workspace_pooling<Precise>)
MB_KERNEL("prroi_unpool_backward", Device::kCpu, bind_pooling<Share>, workspace_pooling<Share>)

}  // namespace mb::MB_ISA
