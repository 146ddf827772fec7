// Vectors of floats as wide as the level's registers.
#pragma once

#include <cstdint>
#include <cstring>

namespace mb::MB_ISA {

// GCC's and Clang's vectors of the level's natural width; arithmetic on them is elementwise.
#if defined(__AVX512F__)
constexpr std::int64_t kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr std::int64_t kVectorBytes = 32;
#else
constexpr std::int64_t kVectorBytes = 16;
#endif
constexpr std::int64_t kLanes = kVectorBytes / std::int64_t(sizeof(float));
using Vector = float __attribute__((vector_size(kVectorBytes)));

inline Vector load(const float* p) {
  Vector v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline void store(float* p, Vector v) { std::memcpy(p, &v, sizeof(v)); }

// The first `count` lanes only; the others are 0.
inline Vector load_part(const float* p, std::int64_t count) {
  Vector v = {};
  std::memcpy(&v, p, std::size_t(count) * sizeof(float));
  return v;
}
inline void store_part(float* p, Vector v, std::int64_t count) {
  std::memcpy(p, &v, std::size_t(count) * sizeof(float));
}

inline std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

}  // namespace mb::MB_ISA
