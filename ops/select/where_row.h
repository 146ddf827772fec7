// One row of where(condition, a, b), for elements of any size.
#pragma once

#include <array>
#include <cstdint>

#include "mb/elementwise.h"

namespace mb::MB_ISA {

// A constant operand is handed in as a lambda, so that every combination is one loop.
template <typename T, typename A, typename B>
void choose(T* y, const bool* condition, std::int64_t n, const A& a, const B& b) {
  const auto* chosen = reinterpret_cast<const std::uint8_t*>(condition);  // bools do not vectorise
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const T first = a(i), second = b(i);
    y[i] = chosen[i] != 0 ? first : second;
  }
}

// step: of y, condition, a, b; 0 for an operand that stays.
template <typename T>
void where_row(T* y, const bool* condition, const T* a, const T* b, std::int64_t n,
               const std::array<std::int64_t, 4>& step) {
  const T a0 = *a, b0 = *b;
  const auto constant_a = [=](std::int64_t) { return a0; };
  const auto constant_b = [=](std::int64_t) { return b0; };
  const auto row_a = [=](std::int64_t i) { return a[i]; };
  const auto row_b = [=](std::int64_t i) { return b[i]; };
  if (step[1] == 0) {  // the whole row comes from one side
    const T* from = *condition ? a : b;
    const std::int64_t by = *condition ? step[2] : step[3];
    map_row(y, from, n, by, [](T x) { return x; });
  } else if (step[1] == 1 && step[2] == 1 && step[3] == 1) {
    choose(y, condition, n, row_a, row_b);
  } else if (step[1] == 1 && step[2] == 1 && step[3] == 0) {
    choose(y, condition, n, row_a, constant_b);
  } else if (step[1] == 1 && step[2] == 0 && step[3] == 1) {
    choose(y, condition, n, constant_a, row_b);
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      y[i] = condition[i * step[1]] ? a[i * step[2]] : b[i * step[3]];
    }
  }
}

}  // namespace mb::MB_ISA
