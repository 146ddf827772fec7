// Gradient of RoI Align for the feature maps, without atomics: bands of rows of the maps are the
// pieces of work. Each walks the boxes of its image in order and adds what falls into its rows, so
// the sums have one order whatever the threads do.
#include "ops/roi_align/geometry.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kWorkers = 32;

struct Band {
  int level;
  std::int64_t image, begin, end;  // rows
};

// Few images: several bands each, about 32 for a level in all.
std::vector<Band> make_bands(std::span<const Tensor> maps) {
  std::vector<Band> bands;
  for (std::size_t level = 0; level < maps.size(); ++level) {
    const std::int64_t images = maps[level].dim(0), height = maps[level].dim(2);
    if (images == 0) continue;
    const std::int64_t pieces = std::clamp<std::int64_t>(kWorkers / images, 1, height);
    for (std::int64_t n = 0; n < images; ++n) {
      for (std::int64_t b = 0; b < pieces; ++b) {
        bands.push_back({int(level), n, height * b / pieces, height * (b + 1) / pieces});
      }
    }
  }
  return bands;
}

// The bins whose samples touch row `row`, and their weights.
std::int64_t bins_of_row(const Taps& rows, std::int64_t bins, std::int64_t row, std::int32_t* bin,
                         float* weight) {
  std::int64_t n = 0;
  for (std::int64_t p = 0; p < bins; ++p) {
    const std::int32_t* index = rows.index + p * rows.capacity;
    for (std::int32_t i = 0; i < rows.count[p]; ++i) {
      if (index[i] != row) continue;
      bin[n] = std::int32_t(p);
      weight[n++] = rows.weight[p * rows.capacity + i];
    }
  }
  return n;
}

// Adds one box's gradient into one row of the map.
void add_row(float* row, const float* dy, std::int64_t across, std::int64_t channels,
             const Taps& columns, const std::int32_t* bin, const float* weight, std::int64_t n) {
  for (std::int64_t q = 0; q < across; ++q) {
    for (std::int32_t j = 0; j < columns.count[q]; ++j) {
      float* target = row + columns.index[q * columns.capacity + j] * channels;
      const float wx = columns.weight[q * columns.capacity + j];
      for (std::int64_t k = 0; k < n; k += 4) {
        const std::int64_t some = std::min<std::int64_t>(4, n - k);
        const float* source[4];
        float w[4];
        for (std::int64_t i = 0; i < some; ++i) {
          source[i] = dy + (bin[k + i] * across + q) * channels;
          w[i] = weight[k + i] * wx;
        }
        combine<true>(target, source, w, some, channels);
      }
    }
  }
}

// workspace: a Region for each box; then for each worker its taps, and bins and weights of a row
std::size_t region_bytes(const Call& call) {
  const std::int64_t boxes = call.in(1).dim(0) * call.in(1).dim(1);
  return (std::size_t(boxes) * sizeof(Region) + 63) / 64 * 64;
}

std::size_t workspace_backward(const Call& call) {
  const Pooling pooling(call.attrs);
  const std::size_t row = std::size_t(pooling.bins[0]) * 8;
  return region_bytes(call) + kWorkers * (TapStore(pooling, call.outputs).bytes() + row);
}

struct Backward {
  Pooling pooling;
  TapStore store;
  std::vector<Tensor> maps;
  std::vector<Band> bands;
  const float *dy, *rois;
  const std::int32_t* count;
  std::int64_t per_image, images, channels;
  Region* regions;
  char* memory;

  void band(const Band& band, char* own) const {
    const Taps rows = store.taps(own, 0), columns = store.taps(own, 1);
    auto* bin = reinterpret_cast<std::int32_t*>(own + store.bytes());
    auto* weight = reinterpret_cast<float*>(bin + pooling.bins[0]);
    const Tensor& map = maps[band.level];
    const std::int64_t height = map.dim(2), width = map.dim(3);
    float* plane = map.data<float>() + band.image * height * width * channels;
    std::fill(plane + band.begin * width * channels, plane + band.end * width * channels, 0.f);
    const std::int64_t valid = std::min<std::int64_t>(count[band.image], per_image);
    const std::int64_t bins = pooling.bins[0] * pooling.bins[1];
    for (std::int64_t r = 0; r < valid; ++r) {
      const std::int64_t item = band.image * per_image + r;
      const Region& region = regions[item];
      if (region.level != band.level) continue;
      // Samples lie within a pixel of the box; the far ones are clamped onto the border.
      const double low = std::min(region.start[0], region.start[0] + region.length[0]) - 1;
      const double high = std::max(region.start[0], region.start[0] + region.length[0]) + 1;
      if (band.begin > 0 && high < double(band.begin)) continue;
      if (band.end < height && low > double(band.end)) continue;
      pooling.fill(region, 0, height, rows);
      pooling.fill(region, 1, width, columns);
      const std::int64_t first =
          std::max(band.begin, std::int64_t(std::clamp(low, 0.0, double(height))) - 1);
      const std::int64_t last =
          std::min(band.end, std::int64_t(std::clamp(high, 0.0, double(height))) + 1);
      for (std::int64_t row = first; row < last; ++row) {
        const std::int64_t n = bins_of_row(rows, pooling.bins[0], row, bin, weight);
        if (n == 0) continue;
        add_row(plane + row * width * channels, dy + item * bins * channels, pooling.bins[1],
                channels, columns, bin, weight, n);
      }
    }
  }

  void run() const {
    for (std::int64_t i = 0; i < images * per_image; ++i) {
      regions[i] = pooling.region_of(rois + 4 * i);
    }
    const std::size_t own = store.bytes() + std::size_t(pooling.bins[0]) * 8;
    const auto total = std::int64_t(bands.size());
    parallel_each(std::min(kWorkers, total), [&](std::int64_t worker) {
      for (std::int64_t b = worker; b < total; b += kWorkers) {
        band(bands[b], memory + std::size_t(worker) * own);
      }
    });
  }
};

Launch bind_backward(const Call& call) {
  const Pooling pooling(call.attrs);
  const std::vector<Tensor> maps(call.outputs.begin(), call.outputs.end());
  for (const Tensor& map : maps) {
    require(map.layout == Layout::kChannelsLast, "feature maps must be channels_last");
  }
  require(call.in(0).layout == Layout::kChannelsLast, "dy must be channels_last");
  char* memory = static_cast<char*>(call.workspace.pointer);
  const Backward backward{pooling,
                          TapStore(pooling, call.outputs),
                          maps,
                          make_bands(call.outputs),
                          call.in(0).data<float>(),
                          call.in(1).data<float>(),
                          call.in(2).data<std::int32_t>(),
                          call.in(1).dim(1),
                          call.in(1).dim(0),
                          maps[0].dim(1),
                          reinterpret_cast<Region*>(memory),
                          memory + region_bytes(call)};
  return [backward](Stream&) { backward.run(); };
}

}  // namespace

MB_KERNEL("roi_align_backward", Device::kCpu, bind_backward, workspace_backward)

}  // namespace mb::MB_ISA
