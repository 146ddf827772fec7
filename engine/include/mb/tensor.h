// A typed, shaped view of memory that somebody else (an arena, a parameter) owns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "mb/dtype.h"
#include "mb/error.h"

namespace mb {

constexpr int kMaxRank = 8;
using Dims = std::array<std::int64_t, kMaxRank>;

// Shapes are always logical (NCHW); the layout says how they lie in memory.
enum class Layout : std::uint8_t { kRows, kChannelsLast };

struct Tensor {
  void* pointer = nullptr;  // null while a kernel is only asked for its workspace
  DType dtype = DType::kFloat32;
  Layout layout = Layout::kRows;
  int rank = 0;
  Dims dims{};

  std::int64_t dim(int axis) const { return dims[axis < 0 ? rank + axis : axis]; }
  std::span<const std::int64_t> shape() const { return {dims.data(), std::size_t(rank)}; }

  std::int64_t count() const {  // number of elements; 1 for a scalar
    std::int64_t product = 1;
    for (int axis = 0; axis < rank; ++axis) product *= dims[axis];
    return product;
  }
  std::size_t bytes() const { return std::size_t(count()) * size_of(dtype); }

  // Element steps for each logical axis.
  Dims strides() const {
    Dims steps{};
    std::int64_t step = 1;
    if (layout == Layout::kChannelsLast && rank == 4) {
      for (int axis : {1, 3, 2, 0}) {
        steps[axis] = step;
        step *= dims[axis];
      }
      return steps;
    }
    for (int axis = rank - 1; axis >= 0; --axis) {
      steps[axis] = step;
      step *= dims[axis];
    }
    return steps;
  }

  template <typename T>
  T* data() const {
    if (dtype != DTypeOf<T>::value) fail("tensor of ", name_of(dtype), " read as another type");
    return static_cast<T*>(pointer);
  }
};

inline bool same_shape(const Tensor& a, const Tensor& b) {
  if (a.rank != b.rank) return false;
  for (int axis = 0; axis < a.rank; ++axis) {
    if (a.dims[axis] != b.dims[axis]) return false;
  }
  return true;
}

}  // namespace mb
