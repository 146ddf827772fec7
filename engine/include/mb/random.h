// Counter-based random numbers: a function of (key, salt, counter), never of time, row or rank.
// The same function in numpy: megbrain_py/random.py.
#pragma once

#include <cstdint>

namespace mb::MB_ISA {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
inline std::uint64_t mix_bits(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// 64 random bits. `key` comes from (seed, step, image id), `salt` tells one operator from another.
inline std::uint64_t random_bits(std::uint64_t key, std::uint64_t salt, std::uint64_t counter) {
  const std::uint64_t stream = mix_bits(key ^ mix_bits(salt + 0x9E3779B97F4A7C15ull));
  return mix_bits(stream + (counter + 1) * 0x9E3779B97F4A7C15ull);
}

// Uniform in [0, 1) with 24 bits, exact in float32.
inline float uniform(std::uint64_t bits) { return float(bits >> 40) * 0x1p-24f; }

}  // namespace mb::MB_ISA
