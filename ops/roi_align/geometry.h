// Which pixels a bin of a box reads, along one axis: shared by RoI Align and its gradient.
#pragma once

#include <cmath>

#include "mb/kernel.h"

namespace mb::MB_ISA {

// Pixels and weights of the bins of one axis; a bin holds each pixel at most once, in order.
struct Taps {
  std::int32_t* count;  // [bins]
  std::int32_t* index;  // [bins, capacity]
  float* weight;        // [bins, capacity]
  std::int64_t capacity;

  void add(std::int64_t bin, std::int64_t pixel, double w) const {
    if (w == 0) return;
    std::int32_t* pixels = index + bin * capacity;
    std::int32_t n = count[bin];
    // Samples go upwards and touch two neighbours: a repeated pixel is among the last two.
    for (std::int32_t k = std::max(0, n - 2); k < n; ++k) {
      if (pixels[k] == pixel) {
        weight[bin * capacity + k] += float(w);
        return;
      }
    }
    pixels[n] = std::int32_t(pixel);
    weight[bin * capacity + n] = float(w);
    count[bin] = n + 1;
  }
};

// A box in the pixels of its level. Double: a rounded coordinate would move every sample.
struct Region {
  int level;
  double start[2], length[2];  // y, x
};

struct Pooling {
  std::int64_t bins[2];  // y, x
  std::int64_t ratio;
  bool aligned;
  std::vector<double> scales;
  double canonical_level, canonical_scale, lowest;

  explicit Pooling(const Attrs& attrs)
      : bins{attrs.integers("size")[0], attrs.integers("size")[1]},
        ratio(attrs.integer("sampling_ratio")),
        aligned(attrs.flag("aligned")),
        scales(attrs.reals("scales")),
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

  Region region_of(const float* box) const {
    Region region;
    region.level = level_of(box);
    const double scale = scales[region.level], offset = aligned ? 0.5 : 0.0;
    for (int axis = 0; axis < 2; ++axis) {
      const double low = box[1 - axis] * scale - offset, high = box[3 - axis] * scale - offset;
      region.start[axis] = low;
      region.length[axis] = aligned ? high - low : std::max(high - low, 1.0);
    }
    return region;
  }

  // Most pixels that one bin can read on an axis of `pixels`.
  std::int64_t capacity(std::int64_t pixels) const {
    return ratio > 0 ? std::min(2 * ratio, pixels) : pixels;
  }

  void fill(const Region& region, int axis, std::int64_t pixels, const Taps& taps) const {
    const double length = region.length[axis], bin = length / double(bins[axis]);
    std::int64_t grid = ratio;
    if (grid <= 0) {  // a box without an end, or that is not a number, reads nothing
      grid = std::abs(length) < 1e9 ? std::max<std::int64_t>(0, std::int64_t(std::ceil(bin))) : 0;
    }
    const double share = 1.0 / double(grid);
    for (std::int64_t b = 0; b < bins[axis]; ++b) {
      taps.count[b] = 0;
      for (std::int64_t i = 0; i < grid; ++i) {
        double at = region.start[axis] + double(b) * bin + (double(i) + 0.5) * bin / double(grid);
        if (!(at >= -1.0 && at <= double(pixels))) continue;
        at = std::min(std::max(at, 0.0), double(pixels - 1));
        const std::int64_t left = std::int64_t(at);
        const double part = at - double(left);
        taps.add(b, left, (1 - part) * share);
        if (left + 1 < pixels) taps.add(b, left + 1, part * share);
      }
    }
  }
};

// Memory of one worker: taps of both axes.
struct TapStore {
  std::int64_t capacity[2];
  std::int64_t bins[2];

  TapStore(const Pooling& pooling, std::span<const Tensor> features) {
    for (int axis = 0; axis < 2; ++axis) {
      bins[axis] = pooling.bins[axis];
      capacity[axis] = 1;
      for (const Tensor& f : features) {
        capacity[axis] = std::max(capacity[axis], pooling.capacity(f.dim(2 + axis)));
      }
    }
  }
  std::size_t words(int axis) const { return std::size_t(bins[axis] * (1 + 2 * capacity[axis])); }
  std::size_t bytes() const { return (words(0) + words(1)) * 4; }
  Taps taps(char* memory, int axis) const {
    char* at = memory + (axis == 0 ? 0 : words(0) * 4);
    const std::int64_t slots = bins[axis] * capacity[axis];
    return {reinterpret_cast<std::int32_t*>(at), reinterpret_cast<std::int32_t*>(at) + bins[axis],
            reinterpret_cast<float*>(at) + bins[axis] + slots, capacity[axis]};
  }
};

// y (+)= sum of w[k] * x[k] over up to 4 rows of channels.
template <int kRows, bool kAdd>
void combine_rows(float* y, const float* const* x, const float* w, std::int64_t channels) {
  const float *a = x[0], *b = x[kRows > 1 ? 1 : 0], *c = x[kRows > 2 ? 2 : 0],
              *d = x[kRows > 3 ? 3 : 0];
#pragma omp simd
  for (std::int64_t i = 0; i < channels; ++i) {
    float total = w[0] * a[i];
    if constexpr (kRows > 1) total += w[1] * b[i];
    if constexpr (kRows > 2) total += w[2] * c[i];
    if constexpr (kRows > 3) total += w[3] * d[i];
    y[i] = kAdd ? y[i] + total : total;
  }
}

template <bool kAdd>
void combine(float* y, const float* const* x, const float* w, std::int64_t rows,
             std::int64_t channels) {
  switch (rows) {
    case 1:
      return combine_rows<1, kAdd>(y, x, w, channels);
    case 2:
      return combine_rows<2, kAdd>(y, x, w, channels);
    case 3:
      return combine_rows<3, kAdd>(y, x, w, channels);
    default:
      return combine_rows<4, kAdd>(y, x, w, channels);
  }
}

}  // namespace mb::MB_ISA
