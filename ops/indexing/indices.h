// Indices that come from data: checked before anything is read or written through them.
#pragma once

#include "mb/kernel.h"

namespace mb::MB_ISA {

template <typename Index>
void check_indices(const Index* indices, std::int64_t n, std::int64_t size) {
  int bad = 0;
#pragma omp simd reduction(| : bad)
  for (std::int64_t i = 0; i < n; ++i) {
    bad |= int(indices[i] < Index(0)) | int(std::int64_t(indices[i]) >= size);
  }
  if (bad == 0) return;
  for (std::int64_t i = 0; i < n; ++i) {
    if (indices[i] < Index(0) || std::int64_t(indices[i]) >= size) {
      fail("index ", std::int64_t(indices[i]), " at position ", i, " is outside of [0, ", size,
           ")");
    }
  }
}

// Calls bind with a value of the indices' type.
template <typename Bind>
Launch for_index_type(const Tensor& indices, const Bind& bind) {
  return indices.dtype == DType::kInt32 ? bind(std::int32_t{}) : bind(std::int64_t{});
}

// Sizes before, at and behind an axis.
struct AxisView {
  std::int64_t outer = 1, size = 1, inner = 1;
};
inline AxisView view_axis(const Tensor& t, std::int64_t axis) {
  AxisView v;
  v.size = t.dims[axis];
  for (int a = 0; a < t.rank; ++a) {
    if (a < axis) v.outer *= t.dims[a];
    if (a > axis) v.inner *= t.dims[a];
  }
  return v;
}

}  // namespace mb::MB_ISA
