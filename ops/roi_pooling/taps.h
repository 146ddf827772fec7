// Sums over pixels whose weights are a product of one in y and one in x: tables of one axis, and
// the loops over channels.
#pragma once

#include <cmath>
#include <span>

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

// Memory of one worker: taps of both axes, `rows` each (the bins, or one more).
struct TapStore {
  std::int64_t capacity[2];
  std::int64_t rows[2];

  // `method` says how many pixels a bin reads at most, and how many rows its tables need.
  template <typename Method>
  TapStore(const Method& method, const std::int64_t* bins, std::span<const Tensor> maps) {
    for (int axis = 0; axis < 2; ++axis) {
      rows[axis] = bins[axis] + Method::kMoreRows;
      capacity[axis] = 1;
      for (const Tensor& map : maps) {
        capacity[axis] = std::max(capacity[axis], method.capacity(map.dim(2 + axis)));
      }
    }
  }
  std::size_t words(int axis) const { return std::size_t(rows[axis] * (1 + 2 * capacity[axis])); }
  std::size_t bytes() const { return (words(0) + words(1)) * 4; }
  Taps taps(char* memory, int axis) const {
    char* at = memory + (axis == 0 ? 0 : words(0) * 4);
    const std::int64_t slots = rows[axis] * capacity[axis];
    return {reinterpret_cast<std::int32_t*>(at), reinterpret_cast<std::int32_t*>(at) + rows[axis],
            reinterpret_cast<float*>(at) + rows[axis] + slots, capacity[axis]};
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
