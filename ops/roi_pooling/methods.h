// How each pooling weights the pixels of one axis. A method places a box on its level and fills
// the tables of its bins; both axes are alike, and what a bin reads is the product of the two.
#pragma once

#include <utility>

#include "ops/roi_pooling/boxes.h"
#include "ops/roi_pooling/taps.h"

namespace mb::MB_ISA {

constexpr double kFar = 1e9;  // a box that begins or ends there has no pixels, and no integers

// The mean of bilinear samples.
struct Align {
  static constexpr bool kOwnMaps = false;
  static constexpr std::int64_t kMoreRows = 0;
  std::int64_t ratio;
  bool aligned, replicate;

  explicit Align(const Attrs& attrs)
      : ratio(attrs.integer("sampling_ratio")),
        aligned(attrs.flag("aligned")),
        replicate(attrs.text("border") == "replicate") {}

  void place(float first, float last, double scale, int axis, Region& region) const {
    const double offset = aligned ? 0.5 : 0.0;
    const double low = first * scale - offset, high = last * scale - offset;
    region.start[axis] = low;
    region.length[axis] = aligned ? high - low : std::max(high - low, 1.0);
  }

  std::int64_t capacity(std::int64_t pixels) const {
    return ratio > 0 ? std::min(2 * ratio, pixels) : pixels;
  }

  void fill(const Region& region, int axis, std::int64_t bins, std::int64_t pixels,
            const Taps& taps) const {
    const double start = region.start[axis], length = region.length[axis];
    const double bin = length / double(bins);
    std::int64_t grid = 0;  // a box without an end, or that is not a number, reads nothing
    if (std::abs(length) < kFar) {
      grid = ratio > 0 ? ratio : std::max<std::int64_t>(0, std::int64_t(std::ceil(bin)));
    }
    const double share = 1.0 / double(grid);
    for (std::int64_t b = 0; b < bins; ++b) {
      taps.count[b] = 0;
      const auto [begin, end] = near(start + double(b) * bin, bin, grid, pixels);
      for (std::int64_t i = begin; i < end; ++i) {
        double at = start + double(b) * bin + (double(i) + 0.5) * bin / double(grid);
        if (!(at >= -1.0 && at <= double(pixels))) continue;
        if (replicate) at = std::min(std::max(at, 0.0), double(pixels - 1));
        const double left = std::floor(at), part = at - left;
        const std::int64_t pixel = std::int64_t(left);
        if (pixel >= 0 && pixel < pixels) taps.add(b, pixel, (1 - part) * share);
        if (pixel + 1 < pixels) taps.add(b, pixel + 1, part * share);
      }
    }
  }

  // The samples that may lie on the map: a bin far larger than it must not be walked through.
  static std::pair<std::int64_t, std::int64_t> near(double start, double bin, std::int64_t grid,
                                                    std::int64_t pixels) {
    if (grid <= 4 || !(bin > 0)) return {0, grid};
    const double step = bin / double(grid), most = double(grid);
    const double first = std::floor((-1.0 - start) / step) - 1;
    const double last = std::ceil((double(pixels) - start) / step) + 1;
    return {std::int64_t(std::clamp(first, 0.0, most)), std::int64_t(std::clamp(last, 0.0, most))};
  }
};

// Pixels [first, last) of a bin of one axis.
struct Range {
  std::int64_t first, last;
};

inline Range clipped(double first, double last, std::int64_t pixels) {
  return {std::int64_t(std::clamp(first, 0.0, double(pixels))),
          std::int64_t(std::clamp(last, 0.0, double(pixels)))};
}

// Corners rounded to pixels, both included, then bins rounded outwards; float as in torchvision.
struct Rounded {
  static void place(float first, float last, double scale, int axis, Region& region) {
    const double low = std::round(first * float(scale)), high = std::round(last * float(scale));
    region.start[axis] = low;
    region.length[axis] = std::max(high - low + 1, 1.0);
  }
  static Range range(const Region& region, int axis, std::int64_t bins, std::int64_t b,
                     std::int64_t pixels) {
    const double start = region.start[axis], length = region.length[axis];
    if (!(std::abs(start) < kFar && length < kFar)) return {0, 0};
    const float bin = float(length) / float(bins);
    return clipped(start + std::floor(float(b) * bin), start + std::ceil(float(b + 1) * bin),
                   pixels);
  }
};

// From the pixel that holds a bin's left edge to the one after its right edge.
struct Covered {
  static void place(float first, float last, double scale, int axis, Region& region) {
    region.start[axis] = first * scale;
    region.length[axis] = last * scale - first * scale;
  }
  static Range range(const Region& region, int axis, std::int64_t bins, std::int64_t b,
                     std::int64_t pixels) {
    const double start = region.start[axis], length = region.length[axis];
    if (!(std::abs(start) < kFar && length >= 0 && length < kFar)) return {0, 0};
    const auto edge = [&](std::int64_t i) { return start + double(i) * length / double(bins); };
    return clipped(std::floor(edge(b)), std::ceil(edge(b + 1)) + 1, pixels);
  }
};

// The mean of whole pixels.
struct Average {
  static constexpr bool kOwnMaps = false;
  static constexpr std::int64_t kMoreRows = 0;
  bool rounded;

  explicit Average(const Attrs& attrs) : rounded(attrs.text("mode") == "avg") {}

  void place(float first, float last, double scale, int axis, Region& region) const {
    rounded ? Rounded::place(first, last, scale, axis, region)
            : Covered::place(first, last, scale, axis, region);
  }
  std::int64_t capacity(std::int64_t pixels) const { return pixels; }

  void fill(const Region& region, int axis, std::int64_t bins, std::int64_t pixels,
            const Taps& taps) const {
    for (std::int64_t b = 0; b < bins; ++b) {
      const Range range = rounded ? Rounded::range(region, axis, bins, b, pixels)
                                  : Covered::range(region, axis, bins, b, pixels);
      const std::int64_t n = std::max<std::int64_t>(range.last - range.first, 0);
      taps.count[b] = std::int32_t(n);
      for (std::int64_t i = 0; i < n; ++i) {
        taps.index[b * taps.capacity + i] = std::int32_t(range.first + i);
        taps.weight[b * taps.capacity + i] = float(1.0 / double(n));
      }
    }
  }
};

}  // namespace mb::MB_ISA
