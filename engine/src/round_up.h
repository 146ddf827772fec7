// Sizes as memory is shared out.
#pragma once

#include <cstddef>

namespace mb {

constexpr std::size_t kCacheLine = 64;  // bytes; every tensor begins one

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit = kCacheLine) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace mb
