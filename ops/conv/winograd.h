// Winograd's minimal filtering for 3x3 convolution, one 6x6 tile of pixels at a time.
//
// With the interpolation points 0, +-a, +-b and infinity (Toom-Cook), six products give four
// neighbouring outputs of a 3-tap filter: y = A^T [(G g) . (B^T d)], and 36 instead of 144 the 4x4
// outputs of a 3x3 one (Winograd 1980; Lavin and Gray 2016). For a finite point p the row of A is
// (1, p, p^2, p^3), the row of G is (1, p, p^2) / N(p) with N(p) = the product of (p - q) over the
// other finite points q, and the row of B^T holds the coefficients of the product of (x - q); for
// infinity they are (0, 0, 0, 1), (0, 0, 1) and the coefficients of the product over all points.
// a = 5/8 and b = 3/2 keep the numbers close together: half the rounding error of 1 and 2, and the
// constants of A and B are exact. tests/test_winograd.py checks the identity in rational numbers.
//
// The adjoint in g is the weight gradient: dg = G^T [(A dy) . (B^T d)].
#pragma once

#include <algorithm>
#include <cstdint>

#include "mb/kernel.h"
#include "ops/conv/vectors.h"

namespace mb::MB_ISA {

constexpr int kTileIn = 6, kTileOut = 4, kTaps = 3;
constexpr int kPlanes = kTileIn * kTileIn;  // products of a tile

constexpr float kA = 0.625f, kB = 1.5f;  // the points
constexpr float kA2 = kA * kA, kB2 = kB * kB;
constexpr float kA3 = kA2 * kA, kB3 = kB2 * kB;
constexpr float kN0 = float(1 / (double(kA2) * kB2));                  // 1 / N(0)
constexpr float kNa = float(1 / (2 * double(kA2) * (kA2 - kB2)));      // 1 / N(+-a)
constexpr float kNb = float(1 / (2 * double(kB2) * (kB2 - kA2)));      // 1 / N(+-b)
constexpr float kNaA = float(kA / (2 * double(kA2) * (kA2 - kB2)));    // a / N(a)
constexpr float kNbB = float(kB / (2 * double(kB2) * (kB2 - kA2)));    // b / N(b)
constexpr float kNaA2 = float(kA2 / (2 * double(kA2) * (kA2 - kB2)));  // a^2 / N(a)
constexpr float kNbB2 = float(kB2 / (2 * double(kB2) * (kB2 - kA2)));  // b^2 / N(b)

// t = B^T d: six pixels
inline void input_line(const Vector* d, Vector* t) {
  const Vector even_a = d[4] - kB2 * d[2], odd_a = d[3] - kB2 * d[1];
  const Vector even_b = d[4] - kA2 * d[2], odd_b = d[3] - kA2 * d[1];
  t[0] = d[4] - (kA2 + kB2) * d[2] + (kA2 * kB2) * d[0];
  t[1] = even_a + kA * odd_a;
  t[2] = even_a - kA * odd_a;
  t[3] = even_b + kB * odd_b;
  t[4] = even_b - kB * odd_b;
  t[5] = d[5] - (kA2 + kB2) * d[3] + (kA2 * kB2) * d[1];
}

// y = A^T m: four outputs
inline void output_line(const Vector* m, Vector* y) {
  const Vector sum_a = m[1] + m[2], difference_a = m[1] - m[2];
  const Vector sum_b = m[3] + m[4], difference_b = m[3] - m[4];
  y[0] = m[0] + sum_a + sum_b;
  y[1] = kA * difference_a + kB * difference_b;
  y[2] = kA2 * sum_a + kB2 * sum_b;
  y[3] = kA3 * difference_a + kB3 * difference_b + m[5];
}

// s = A y: the gradient of four outputs
inline void output_gradient_line(const Vector* y, Vector* s) {
  const Vector even_a = y[0] + kA2 * y[2], odd_a = y[1] + kA2 * y[3];
  const Vector even_b = y[0] + kB2 * y[2], odd_b = y[1] + kB2 * y[3];
  s[0] = y[0];
  s[1] = even_a + kA * odd_a;
  s[2] = even_a - kA * odd_a;
  s[3] = even_b + kB * odd_b;
  s[4] = even_b - kB * odd_b;
  s[5] = y[3];
}

// u = G g: three taps
inline void weight_line(const Vector* g, Vector* u) {
  const Vector even_a = kNa * g[0] + kNaA2 * g[2], odd_a = kNaA * g[1];
  const Vector even_b = kNb * g[0] + kNbB2 * g[2], odd_b = kNbB * g[1];
  u[0] = kN0 * g[0];
  u[1] = even_a + odd_a;
  u[2] = even_a - odd_a;
  u[3] = even_b + odd_b;
  u[4] = even_b - odd_b;
  u[5] = g[2];
}

// g = G^T u: the gradient of three taps
inline void weight_gradient_line(const Vector* u, Vector* g) {
  const Vector sum_a = u[1] + u[2], sum_b = u[3] + u[4];
  g[0] = kN0 * u[0] + kNa * sum_a + kNb * sum_b;
  g[1] = kNaA * (u[1] - u[2]) + kNbB * (u[3] - u[4]);
  g[2] = kNaA2 * sum_a + kNbB2 * sum_b + u[5];
}

// A line's transform along both axes of a kFrom x kFrom square: load(i, j) -> Vector, then
// store(i, j, Vector) for the kTo x kTo results.
template <int kFrom, int kTo, typename Line, typename Load, typename Store>
inline void along_both_axes(const Line& line, const Load& load_at, const Store& store_at) {
  Vector half[kTo][kFrom];
  for (int j = 0; j < kFrom; ++j) {
    Vector from[kFrom], to[kTo];
    for (int i = 0; i < kFrom; ++i) from[i] = load_at(i, j);
    line(from, to);
    for (int i = 0; i < kTo; ++i) half[i][j] = to[i];
  }
  for (int i = 0; i < kTo; ++i) {
    Vector to[kTo];
    line(half[i], to);
    for (int j = 0; j < kTo; ++j) store_at(i, j, to[j]);
  }
}

// Where the tiles of a map lie. Tile (n, r, c) makes the outputs from (4 r, 4 c) on, as far as
// there are any; it reads 6x6 pixels of the input from (4 r - top, 4 c - left) on.
struct Tiling {
  std::int64_t batch, rows, columns;  // tiles
  std::int64_t in_height, in_width;   // pixels
  std::int64_t out_height, out_width;
  std::int64_t top, left;  // zeros before the input

  Tiling(std::int64_t images, std::int64_t in_h, std::int64_t in_w, std::int64_t out_h,
         std::int64_t out_w, std::int64_t pad_top, std::int64_t pad_left)
      : batch(images),
        rows((out_h + kTileOut - 1) / kTileOut),
        columns((out_w + kTileOut - 1) / kTileOut),
        in_height(in_h),
        in_width(in_w),
        out_height(out_h),
        out_width(out_w),
        top(pad_top),
        left(pad_left) {}

  std::int64_t count() const { return batch * rows * columns; }
};

struct Tile {
  std::int64_t image, y, x;  // the first output

  Tile(const Tiling& t, std::int64_t index)
      : image(index / (t.rows * t.columns)),
        y(index / t.columns % t.rows * kTileOut),
        x(index % t.columns * kTileOut) {}
};

// Pointers to the kSide x kSide pixels from (y, x) on of a channels-last map; what lies outside is
// read from `zeros`, one pixel of zeros.
template <int kSide>
struct Window {
  const float* pixel[kSide][kSide];

  Window(const float* map, std::int64_t image, std::int64_t height, std::int64_t width,
         std::int64_t channels, std::int64_t y, std::int64_t x, const float* zeros) {
    for (int i = 0; i < kSide; ++i) {
      for (int j = 0; j < kSide; ++j) {
        const bool inside = y + i >= 0 && y + i < height && x + j >= 0 && x + j < width;
        const std::int64_t at = (image * height + y + i) * width + x + j;
        pixel[i][j] = inside ? map + at * channels : zeros;
      }
    }
  }
};

// Planes are set apart by 64 bytes more than they hold: 36 stores to one place of each would
// otherwise fall on the same lines of the cache.
constexpr std::int64_t kPlanePad = 16;

// Refuses attributes that the algorithm is not for; w: the weights or their gradient.
inline void require_winograd(const Call& call, const Tensor& w) {
  const auto ones = [&](const char* name) {
    const auto& values = call.attrs.integers(name);
    return values[0] == 1 && values[1] == 1;
  };
  const auto& p = call.attrs.integers("padding");
  require(w.dim(2) == 3 && w.dim(3) == 3 && ones("stride") && ones("dilation") &&
              call.attrs.integer("groups") == 1 && *std::max_element(p.begin(), p.end()) <= 2,
          "Winograd's algorithm is for 3x3 kernels, stride 1, paddings up to 2 and one group");
  require(call.in(0).layout == Layout::kChannelsLast,
          "Winograd's algorithm needs images in channels_last");
}

}  // namespace mb::MB_ISA
