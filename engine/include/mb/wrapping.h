// Integers wrap around as numpy's do: computed as unsigned numbers, where C++ defines that.
#pragma once

#include <type_traits>

namespace mb {

template <typename T>
struct WrappingOf {
  using type = T;
};
template <typename T>
  requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
struct WrappingOf<T> {
  using type = std::make_unsigned_t<T>;
};

// The type in which T's sums and products are made: float for float, unsigned for an integer.
template <typename T>
using Wrapping = typename WrappingOf<T>::type;

}  // namespace mb
