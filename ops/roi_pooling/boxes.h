// The boxes of a pooling: which are valid, which map each is pooled from, where it lies there.
#pragma once

#include <cmath>
#include <vector>

#include "mb/kernel.h"

namespace mb::MB_ISA {

// Which level of a pyramid a box belongs to (Lin et al. 2017, equation 1).
struct Pyramid {
  std::vector<double> scales;
  double canonical_level, canonical_scale, lowest;

  explicit Pyramid(const Attrs& attrs)
      : scales(attrs.reals("scales")),
        canonical_level(attrs.real("canonical_level")),
        canonical_scale(attrs.real("canonical_scale")),
        lowest(std::nearbyint(-std::log2(scales[0]))) {}

  int level_of(const float* box) const {
    const double area = (double(box[2]) - box[0]) * (double(box[3]) - box[1]);
    if (scales.size() == 1 || !(area > 0)) return 0;
    const double level = canonical_level + std::log2(std::sqrt(area) / canonical_scale);
    const double index = std::floor(level + 1e-6) - lowest;
    return int(std::clamp(index, 0.0, double(scales.size() - 1)));
  }
};

// A box in the pixels of its level. Double: a rounded coordinate would move every sample.
struct Region {
  int level;                   // -1: it has no map
  double start[2], length[2];  // y, x
};

// The last inputs of a pooling, from input `first` on: rois, count and perhaps level.
struct Boxes {
  Pyramid pyramid;
  const float* rois;
  const std::int32_t *count, *level;
  std::int64_t images, per_image;

  Boxes(const Call& call, std::size_t first)
      : pyramid(call.attrs),
        rois(call.in(first).data<float>()),
        count(call.in(first + 1).data<std::int32_t>()),
        level(call.inputs.size() > first + 2 ? call.in(first + 2).data<std::int32_t>() : nullptr),
        images(call.in(first).dim(0)),
        per_image(call.in(first).dim(1)) {}

  std::int64_t total() const { return images * per_image; }

  template <typename Method>
  Region region(const Method& method, std::int64_t item) const {
    Region region{-1, {0, 0}, {0, 0}};
    if (item % per_image >= count[item / per_image]) return region;
    const float* box = rois + 4 * item;
    const std::int64_t found = level == nullptr ? pyramid.level_of(box) : level[item];
    if (found < 0 || found >= std::int64_t(pyramid.scales.size())) return region;
    region.level = int(found);
    for (int axis = 0; axis < 2; ++axis) {
      method.place(box[1 - axis], box[3 - axis], pyramid.scales[found], axis, region);
    }
    return region;
  }
};

inline void require_channels_last(std::span<const Tensor> maps) {
  for (const Tensor& map : maps) {
    require(map.layout == Layout::kChannelsLast, "feature maps must be channels_last");
  }
}

// Few images: several bands of rows each, about kWorkers for a level in all.
constexpr std::int64_t kWorkers = 32;  // pieces of work; each has its own tables

struct Band {
  int level;
  std::int64_t image, begin, end;  // rows
};

inline std::vector<Band> make_bands(std::span<const Tensor> maps) {
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

}  // namespace mb::MB_ISA
