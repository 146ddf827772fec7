// Small matrix products whose sums stay in registers: Winograd's planes, weight gradients.
#pragma once

#include <array>
#include <utility>

#include "ops/conv/vectors.h"

namespace mb::MB_ISA {

// A panel is as wide as the registers hold beside six rows of sums: 6x64 with AVX-512's 32
// registers, 6x16 with AVX2's 16, 6x8 with SSE2's.
constexpr int kPanelRows = 6;
constexpr int kPanelVectors = kVectorBytes == 64 ? 4 : 2;
constexpr std::int64_t kPanel = kPanelVectors * kLanes;

// c[m, n] (+)= sum over k of a[m, k] b[k, n] for kRows rows and kVectors vectors of columns. Each
// sum runs over k in order and from zero, and is added to c at the end: small errors.
template <int kRows, int kVectors, bool kAdd>
void multiply_block(std::int64_t depth, const float* a, std::int64_t a_row, std::int64_t a_step,
                    const float* b, float* c, std::int64_t c_row) {
  Vector sum[kRows][kVectors] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
    Vector right[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) right[v] = load(b + v * kLanes);
#pragma GCC unroll 6
    for (int m = 0; m < kRows; ++m) {
      const float left = a[m * a_row];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[m][v] += left * right[v];
    }
    a += a_step;
    b += kPanel;
  }
#pragma GCC unroll 6
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      float* const at = c + m * c_row + v * kLanes;
      store(at, kAdd ? load(at) + sum[m][v] : sum[m][v]);
    }
  }
}

using MultiplyBlock = void (*)(std::int64_t, const float*, std::int64_t, std::int64_t, const float*,
                               float*, std::int64_t);

template <bool kAdd, std::size_t... kIndex>
constexpr auto multiply_blocks(std::index_sequence<kIndex...>) {
  return std::array<MultiplyBlock, sizeof...(kIndex)>{
      multiply_block<kIndex % kPanelRows + 1, kIndex / kPanelRows + 1, kAdd>...};
}

// c (+)= a b for any number of rows, cut evenly into blocks, and the first `vectors` vectors of a
// panel b: [depth, kPanel].
template <bool kAdd>
inline void multiply_panel(std::int64_t rows, int vectors, std::int64_t depth, const float* a,
                           std::int64_t a_row, std::int64_t a_step, const float* b, float* c,
                           std::int64_t c_row) {
  static constexpr auto kBlocks =
      multiply_blocks<kAdd>(std::make_index_sequence<kPanelVectors * kPanelRows>());
  const std::int64_t blocks = (rows + kPanelRows - 1) / kPanelRows;
  for (std::int64_t i = 0; i < blocks; ++i) {
    const std::int64_t begin = rows * i / blocks, end = rows * (i + 1) / blocks;
    kBlocks[std::size_t((vectors - 1) * kPanelRows + end - begin - 1)](
        depth, a + begin * a_row, a_row, a_step, b, c + begin * c_row, c_row);
  }
}

}  // namespace mb::MB_ISA
