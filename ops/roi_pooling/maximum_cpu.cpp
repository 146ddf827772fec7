// RoI max-pooling, and its gradient: each band of rows of a map takes what its pixels have won.
#include <limits>

#include "ops/roi_pooling/methods.h"

namespace mb::MB_ISA {
namespace {

// The largest values of kWidth channels and their places; of equals the first, NaN never. They
// stay in registers.
template <int kWidth>
void pool_lanes(float* y, std::int32_t* index, const float* map, std::int64_t width,
                std::int64_t channels, Range rows, Range columns) {
  alignas(64) float best[kWidth];
  alignas(64) std::int32_t place[kWidth];
  const bool any = rows.last > rows.first && columns.last > columns.first;
  for (int c = 0; c < kWidth; ++c) {
    best[c] = any ? std::numeric_limits<float>::lowest() : 0.f;
    place[c] = -1;
  }
  for (std::int64_t i = rows.first; i < rows.last; ++i) {
    for (std::int64_t j = columns.first; j < columns.last; ++j) {
      const float* x = map + (i * width + j) * channels;
      const auto here = std::int32_t(i * width + j);
#pragma omp simd
      for (int c = 0; c < kWidth; ++c) {
        // The second half is always true with the first; without it GCC makes jumps of the choice.
        const bool better = (x[c] > best[c]) & (x[c] == x[c]);
        best[c] = better ? x[c] : best[c];
        place[c] = better ? here : place[c];
      }
    }
  }
  for (int c = 0; c < kWidth; ++c) y[c] = best[c];
  for (int c = 0; c < kWidth; ++c) index[c] = place[c];
}

void pool_bin(float* y, std::int32_t* index, const float* map, std::int64_t width,
              std::int64_t channels, Range rows, Range columns) {
  std::int64_t c = 0;
  for (; c + 64 <= channels; c += 64) {
    pool_lanes<64>(y + c, index + c, map + c, width, channels, rows, columns);
  }
  for (; c + 16 <= channels; c += 16) {
    pool_lanes<16>(y + c, index + c, map + c, width, channels, rows, columns);
  }
  for (; c < channels; ++c) {
    pool_lanes<1>(y + c, index + c, map + c, width, channels, rows, columns);
  }
}

Launch bind_maximum(const Call& call) {
  const std::size_t levels = call.attrs.reals("scales").size();
  const Boxes boxes(call, levels);
  const std::vector<Tensor> features(call.inputs.begin(), call.inputs.begin() + levels);
  require_channels_last(features);
  require_channels_last(call.outputs);
  const std::int64_t down = call.out().dim(2), across = call.out().dim(3);
  const std::int64_t channels = features[0].dim(1);
  float* y = call.out(0).data<float>();
  std::int32_t* index = call.out(1).data<std::int32_t>();
  return [=](Stream&) {
    const std::int64_t size = down * across * channels;
    parallel_each(boxes.total(), [&](std::int64_t item) {
      const Region region = boxes.region(Rounded{}, item);
      if (region.level < 0) {
        std::fill(y + item * size, y + (item + 1) * size, 0.f);
        std::fill(index + item * size, index + (item + 1) * size, -1);
        return;
      }
      const Tensor& f = features[region.level];
      const std::int64_t height = f.dim(2), width = f.dim(3);
      const float* map = f.data<float>() + item / boxes.per_image * height * width * channels;
      for (std::int64_t p = 0; p < down; ++p) {
        const Range rows = Rounded::range(region, 0, down, p, height);
        for (std::int64_t q = 0; q < across; ++q) {
          const std::int64_t at = item * size + (p * across + q) * channels;
          pool_bin(y + at, index + at, map, width, channels, rows,
                   Rounded::range(region, 1, across, q, width));
        }
      }
    });
  };
}

// inputs: dy, the winners' places, rois, count[, level]
struct MaximumBackward {
  Boxes boxes;
  std::vector<Tensor> maps;
  std::vector<Band> bands;
  std::int64_t down, across, channels;
  const float* dy;
  const std::int32_t* index;

  explicit MaximumBackward(const Call& call)
      : boxes(call, 2),
        maps(call.outputs.begin(), call.outputs.end()),
        bands(make_bands(call.outputs)),
        down(call.in(0).dim(2)),
        across(call.in(0).dim(3)),
        channels(call.in(0).dim(1)),
        dy(call.in(0).data<float>()),
        index(call.in(1).data<std::int32_t>()) {}

  void fill_band(const Band& band) const {
    const std::int64_t height = maps[band.level].dim(2), width = maps[band.level].dim(3);
    float* plane = maps[band.level].data<float>() + band.image * height * width * channels;
    const std::int64_t begin = band.begin * width, end = band.end * width;
    std::fill(plane + begin * channels, plane + end * channels, 0.f);
    for (std::int64_t r = 0; r < boxes.per_image; ++r) {
      const std::int64_t item = band.image * boxes.per_image + r;
      const Region region = boxes.region(Rounded{}, item);
      if (region.level != band.level) continue;
      for (std::int64_t p = 0; p < down; ++p) {
        const Range rows = Rounded::range(region, 0, down, p, height);
        if (rows.first >= band.end || rows.last <= band.begin) continue;
        const std::int64_t at = (item * down + p) * across * channels;
        for (std::int64_t q = 0; q < across; ++q) {
          add_winners(plane, begin, end, at + q * channels);
        }
      }
    }
  }

  // The channels of one bin whose winner is among the places [begin, end).
  void add_winners(float* plane, std::int64_t begin, std::int64_t end, std::int64_t at) const {
    for (std::int64_t c = 0; c < channels; ++c) {
      const std::int64_t place = index[at + c];
      if (place >= begin && place < end) plane[place * channels + c] += dy[at + c];
    }
  }
};

Launch bind_maximum_backward(const Call& call) {
  require_channels_last(call.outputs);
  require_channels_last(call.inputs.first(2));
  return [backward = MaximumBackward(call)](Stream&) {
    parallel_each(std::int64_t(backward.bands.size()),
                  [&](std::int64_t b) { backward.fill_band(backward.bands[b]); });
  };
}

}  // namespace

MB_KERNEL("roi_max_pool", Device::kCpu, bind_maximum)
MB_KERNEL("roi_max_pool_backward", Device::kCpu, bind_maximum_backward)

}  // namespace mb::MB_ISA
