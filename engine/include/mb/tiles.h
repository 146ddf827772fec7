// Matrix transposition in tiles; elements of 4 bytes go through vector registers, 8 x 8 at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace mb::MB_ISA {

typedef std::uint32_t Lanes __attribute__((vector_size(32)));

// y[i * y_step + j] = x[j * x_step + i] for 8 x 8 elements: three rounds of exchanges.
inline void transpose_8x8(std::uint32_t* y, std::int64_t y_step, const std::uint32_t* x,
                          std::int64_t x_step) {
  Lanes a[8], b[8];
  for (int j = 0; j < 8; ++j) std::memcpy(&a[j], x + j * x_step, 32);
  constexpr Lanes kLow = {0, 8, 1, 9, 4, 12, 5, 13}, kHigh = {2, 10, 3, 11, 6, 14, 7, 15};
  for (int j = 0; j < 8; j += 2) {  // pairs of rows, interleaved
    b[j] = __builtin_shuffle(a[j], a[j + 1], kLow);
    b[j + 1] = __builtin_shuffle(a[j], a[j + 1], kHigh);
  }
  constexpr Lanes kFirst = {0, 1, 8, 9, 4, 5, 12, 13}, kSecond = {2, 3, 10, 11, 6, 7, 14, 15};
  for (int j = 0; j < 8; j += 4) {  // quads
    a[j] = __builtin_shuffle(b[j], b[j + 2], kFirst);
    a[j + 1] = __builtin_shuffle(b[j], b[j + 2], kSecond);
    a[j + 2] = __builtin_shuffle(b[j + 1], b[j + 3], kFirst);
    a[j + 3] = __builtin_shuffle(b[j + 1], b[j + 3], kSecond);
  }
  constexpr Lanes kLeft = {0, 1, 2, 3, 8, 9, 10, 11}, kRight = {4, 5, 6, 7, 12, 13, 14, 15};
  for (int i = 0; i < 4; ++i) {  // halves
    b[i] = __builtin_shuffle(a[i], a[i + 4], kLeft);
    b[i + 4] = __builtin_shuffle(a[i], a[i + 4], kRight);
  }
  for (int i = 0; i < 8; ++i) std::memcpy(y + i * y_step, &b[i], 32);
}

// y[i * y_step + j] = x[j * x_step + i] for i < height (a few cache lines), j < width.
template <typename T>
void transpose_strip(T* y, std::int64_t y_step, const T* x, std::int64_t x_step,
                     std::int64_t height, std::int64_t width) {
  constexpr std::int64_t kTile = 16;
  for (std::int64_t j = 0; j < width; j += kTile) {
    const std::int64_t columns = std::min(kTile, width - j);
    for (std::int64_t i = 0; i < height; i += kTile) {
      const std::int64_t rows = std::min(kTile, height - i);
      T* to = y + i * y_step + j;
      const T* from = x + j * x_step + i;
      if constexpr (sizeof(T) == 4) {
        if (rows == kTile && columns == kTile) {
          transpose_8x8(to, y_step, from, x_step);
          transpose_8x8(to + 8 * y_step, y_step, from + 8, x_step);
          transpose_8x8(to + 8, y_step, from + 8 * x_step, x_step);
          transpose_8x8(to + 8 * y_step + 8, y_step, from + 8 * x_step + 8, x_step);
          continue;
        }
      }
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < columns; ++c) to[r * y_step + c] = from[c * x_step + r];
      }
    }
  }
}

}  // namespace mb::MB_ISA
