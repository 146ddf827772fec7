// Precise RoI Pooling: integrals of the pixels' hats over bins, cell by cell.
#pragma once

#include "ops/roi_pooling/methods.h"

namespace mb::MB_ISA {

// Calls take(pixel, integral of the pixel's hat from `low` to `high`) for each pixel whose hat
// reaches there, in order. A hat is linear between two pixels, so that each cell gives its two
// pixels products, without the differences of large terms that tiny bins would drown in. Only cells
// of the map are walked.
template <typename Take>
void each_hat(double low, double high, std::int64_t pixels, const Take& take) {
  const double first = std::clamp(std::floor(low), -1.0, double(pixels));
  const double last = std::clamp(std::ceil(high), -1.0, double(pixels));
  double held = 0;  // what the cell to the left gave its right pixel
  for (std::int64_t cell = std::int64_t(first); cell <= std::int64_t(last); ++cell) {
    const double u = std::max(low - double(cell), 0.0), v = std::min(high - double(cell), 1.0);
    const double length = std::max(v - u, 0.0), middle = (u + v) / 2;
    if (cell >= 0 && cell < pixels) take(cell, held + length * (1 - middle));
    held = length * middle;
  }
}

// Row `b` of the taps: factor * the integral of each pixel's hat from `low` to `high`.
inline void integrate(double low, double high, double factor, std::int64_t pixels, std::int64_t b,
                      const Taps& taps) {
  std::int64_t at = b * taps.capacity;
  each_hat(low, high, pixels, [&](std::int64_t pixel, double integral) {
    taps.index[at] = std::int32_t(pixel);
    taps.weight[at++] = float(factor * integral);
  });
  taps.count[b] = std::int32_t(at - b * taps.capacity);
}

inline bool has_length(const Region& region, int axis) {
  const double start = region.start[axis], length = region.length[axis];
  return length > 0 && std::isfinite(start) && std::isfinite(length);
}

struct Precise {
  static constexpr bool kOwnMaps = false;
  static constexpr std::int64_t kMoreRows = 0;

  explicit Precise(const Attrs&) {}

  static void place(float first, float last, double scale, int axis, Region& region) {
    Covered::place(first, last, scale, axis, region);
  }
  static std::int64_t capacity(std::int64_t pixels) { return pixels; }

  static void fill(const Region& region, int axis, std::int64_t bins, std::int64_t pixels,
                   const Taps& taps) {
    fill(region, axis, bins, pixels, taps, double(bins) / region.length[axis]);
  }
  static void fill(const Region& region, int axis, std::int64_t bins, std::int64_t pixels,
                   const Taps& taps, double factor) {
    const bool any = has_length(region, axis);
    for (std::int64_t b = 0; b < bins; ++b) {
      taps.count[b] = 0;
      if (!any) continue;
      integrate(edge(region, axis, bins, b), edge(region, axis, bins, b + 1), factor, pixels, b,
                taps);
    }
  }
  static double edge(const Region& region, int axis, std::int64_t bins, std::int64_t i) {
    return region.start[axis] + double(i) * region.length[axis] / double(bins);
  }
};

// The shares of bins in the pixels of a window of their own: Precise, each pixel's sum being 1.
struct Share {
  static constexpr bool kOwnMaps = true;
  static constexpr std::int64_t kMoreRows = 1;  // the whole box, which gives the sums

  explicit Share(const Attrs&) {}

  static void place(float first, float last, double scale, int axis, Region& region) {
    Precise::place(first, last, scale, axis, region);
  }
  static std::int64_t capacity(std::int64_t pixels) { return pixels; }

  static void fill(const Region& region, int axis, std::int64_t bins, std::int64_t pixels,
                   const Taps& taps) {
    Precise::fill(region, axis, bins, pixels, taps, 1.0);
    if (!has_length(region, axis)) return;
    integrate(Precise::edge(region, axis, bins, 0), Precise::edge(region, axis, bins, bins), 1.0,
              pixels, bins, taps);
    const std::int32_t* index = taps.index + bins * taps.capacity;
    const float* sum = taps.weight + bins * taps.capacity;
    for (std::int64_t b = 0; b < bins; ++b) {
      for (std::int32_t k = 0; k < taps.count[b]; ++k) {
        const std::int64_t at = b * taps.capacity + k;
        const float whole = sum[taps.index[at] - index[0]];
        taps.weight[at] = whole > 0 ? taps.weight[at] / whole : 0.f;
      }
    }
  }
};

}  // namespace mb::MB_ISA
