// Adjoints of the poolings, without atomics: bands of rows of the maps are the pieces of work.
// Each walks the boxes of its image in order and adds what falls into its rows, so the sums have
// one order whatever the threads do.
#include "ops/roi_pooling/precise.h"

namespace mb::MB_ISA {
namespace {

// The bins whose weights touch row `row`, and their weights.
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

template <typename Method>
struct Adjoint {
  Method method;
  TapStore store;
  Boxes boxes;
  std::vector<Tensor> maps;
  std::vector<Band> bands;
  std::int64_t down, across, channels;
  const float* dy;
  Region* regions;
  char* memory;

  explicit Adjoint(const Call& call)
      : method(call.attrs),
        store(method, call.attrs.integers("size").data(), call.outputs),
        boxes(call, 1),
        maps(call.outputs.begin(), call.outputs.end()),
        bands(make_bands(call.outputs)),
        down(call.in(0).dim(2)),
        across(call.in(0).dim(3)),
        channels(call.in(0).dim(1)),
        dy(call.in(0).data<float>()),
        regions(static_cast<Region*>(call.workspace.pointer)),
        memory(static_cast<char*>(call.workspace.pointer) + region_bytes(call)) {}

  std::size_t own_bytes() const { return store.bytes() + std::size_t(down) * 8; }

  // Adds box `item` into the rows of the band.
  void add_box(const Band& band, std::int64_t item, float* plane, char* own) const {
    const Region& region = regions[item];
    const std::int64_t height = maps[band.level].dim(2), width = maps[band.level].dim(3);
    // Pixels lie within one of the box; those read beyond the border are on it.
    const double low = std::min(region.start[0], region.start[0] + region.length[0]) - 1;
    const double high = std::max(region.start[0], region.start[0] + region.length[0]) + 1;
    if (!(low <= high)) return;  // not numbers
    if (band.begin > 0 && high < double(band.begin)) return;
    if (band.end < height && low > double(band.end)) return;
    const Taps rows = store.taps(own, 0), columns = store.taps(own, 1);
    auto* bin = reinterpret_cast<std::int32_t*>(own + store.bytes());
    auto* weight = reinterpret_cast<float*>(bin + down);
    method.fill(region, 0, down, height, rows);
    method.fill(region, 1, across, width, columns);
    const std::int64_t first =
        std::max(band.begin, std::int64_t(std::clamp(low, 0.0, double(height))) - 1);
    const std::int64_t last =
        std::min(band.end, std::int64_t(std::clamp(high, 0.0, double(height))) + 1);
    for (std::int64_t row = first; row < last; ++row) {
      const std::int64_t n = bins_of_row(rows, down, row, bin, weight);
      if (n == 0) continue;
      add_row(plane + row * width * channels, dy + item * down * across * channels, across,
              channels, columns, bin, weight, n);
    }
  }

  void fill_band(const Band& band, char* own) const {
    const std::int64_t row = maps[band.level].dim(3) * channels;
    float* plane = maps[band.level].template data<float>();
    plane += band.image * maps[band.level].dim(2) * row;
    std::fill(plane + band.begin * row, plane + band.end * row, 0.f);
    const std::int64_t rows = Method::kOwnMaps ? 1 : boxes.per_image;
    for (std::int64_t item = band.image * rows; item < (band.image + 1) * rows; ++item) {
      if (regions[item].level == band.level) add_box(band, item, plane, own);
    }
  }

  void run() const {
    for (std::int64_t i = 0; i < boxes.total(); ++i) regions[i] = boxes.region(method, i);
    const auto total = std::int64_t(bands.size());
    parallel_each(std::min(kWorkers, total), [&](std::int64_t worker) {
      for (std::int64_t b = worker; b < total; b += kWorkers) {
        fill_band(bands[b], memory + std::size_t(worker) * own_bytes());
      }
    });
  }
};

template <typename Method>
std::size_t workspace_adjoint(const Call& call) {
  return region_bytes(call) + kWorkers * Adjoint<Method>(call).own_bytes();
}

template <typename Method>
Launch bind_adjoint(const Call& call) {
  require_channels_last(call.outputs);
  require(call.in(0).layout == Layout::kChannelsLast, "dy must be channels_last");
  return [adjoint = Adjoint<Method>(call)](Stream&) { adjoint.run(); };
}

}  // namespace

MB_KERNEL("roi_align_backward", Device::kCpu, bind_adjoint<Align>, workspace_adjoint<Align>)
MB_KERNEL("roi_avg_pool_backward", Device::kCpu, bind_adjoint<Average>, workspace_adjoint<Average>)
MB_KERNEL("prroi_pool_backward", Device::kCpu, bind_adjoint<Precise>, workspace_adjoint<Precise>)
MB_KERNEL("prroi_unpool", Device::kCpu, bind_adjoint<Share>, workspace_adjoint<Share>)

}  // namespace mb::MB_ISA
