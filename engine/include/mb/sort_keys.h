// Sorting by 32-bit numbers that carry an index: digit by digit, stable, without comparisons.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace mb::MB_ISA {

// Unsigned numbers in the order of the elements; equal elements (0 and -0, any NaNs) are equal.
[[gnu::always_inline]] inline std::uint32_t ordered(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x == 0.0f ? 0.0f : x);
  const std::uint32_t rising = bits ^ (bits >> 31 != 0 ? 0xFFFFFFFFu : 0x80000000u);
  return x != x ? 0xFFFFFFFFu : rising;
}
[[gnu::always_inline]] inline std::uint32_t ordered(std::int32_t x) {
  return std::uint32_t(x) ^ 0x80000000u;
}

// A number in the upper half, its index in the lower.
inline std::uint64_t sort_key(std::uint32_t place, std::int64_t index) {
  return std::uint64_t(place) << 32 | std::uint64_t(index);
}
inline std::int64_t index_of(std::uint64_t key) { return std::int64_t(key & 0xFFFFFFFFu); }

// Sorts n keys whose indices rise; `other` is memory of the same size. Returns the one of the two
// that holds the result.
inline std::uint64_t* sort_keys(std::uint64_t* keys, std::uint64_t* other, std::int64_t n) {
  if (n < 512) {
    std::sort(keys, keys + n);
    return keys;
  }
  constexpr int kDigits = 3, kBits = 11, kValues = 1 << kBits;
  std::array<std::array<std::uint32_t, kValues>, kDigits> next{};
  const auto digit = [](std::uint64_t key, int d) {
    return key >> (32 + kBits * d) & (kValues - 1);
  };
  for (std::int64_t i = 0; i < n; ++i) {
    for (int d = 0; d < kDigits; ++d) ++next[d][digit(keys[i], d)];
  }
  for (int d = 0; d < kDigits; ++d) {
    if (next[d][digit(keys[0], d)] == n) continue;  // all agree
    std::uint32_t run = 0;
    for (std::uint32_t& place : next[d]) {
      const std::uint32_t here = place;
      place = run;
      run += here;
    }
    for (std::int64_t i = 0; i < n; ++i) other[next[d][digit(keys[i], d)]++] = keys[i];
    std::swap(keys, other);
  }
  return keys;
}

}  // namespace mb::MB_ISA
