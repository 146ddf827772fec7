// Picking by index: gather, take_along_axis, one_hot.
#include <cstring>

#include "ops/indexing/indices.h"

namespace mb::MB_ISA {
namespace {

template <typename Index>
Launch bind_gather_rows(const Call& call) {  // slices of many bytes
  const AxisView v = view_axis(call.in(0), call.attrs.integer("axis"));
  const std::size_t bytes = std::size_t(v.inner) * size_of(call.in(0).dtype);
  const char* x = static_cast<const char*>(call.in(0).pointer);
  const Index* indices = call.in(1).data<Index>();
  const std::int64_t n = call.in(1).count();
  char* y = static_cast<char*>(call.out().pointer);
  const std::int64_t grain = std::max<std::int64_t>(1, (1 << 16) / std::int64_t(bytes + 1));
  return [=](Stream&) {
    check_indices(indices, n, v.size);
    parallel_for(v.outer * n, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t item = begin; item < end; ++item) {
        const std::int64_t row = item / n * v.size + std::int64_t(indices[item % n]);
        std::memcpy(y + std::size_t(item) * bytes, x + std::size_t(row) * bytes, bytes);
      }
    });
  };
}

template <typename T, typename Index>
Launch bind_gather_elements(const Call& call) {
  const AxisView v = view_axis(call.in(0), call.attrs.integer("axis"));
  const T* x = static_cast<const T*>(call.in(0).pointer);
  const Index* indices = call.in(1).data<Index>();
  const std::int64_t n = call.in(1).count();
  T* y = static_cast<T*>(call.out().pointer);
  return [=](Stream&) {
    check_indices(indices, n, v.size);
    for (std::int64_t o = 0; o < v.outer; ++o) {
      const T* from = x + o * v.size;
      T* to = y + o * n;
      parallel_for(n, 16384, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) to[i] = from[indices[i]];
      });
    }
  };
}

template <typename T, typename Index>
Launch bind_take(const Call& call) {
  const std::int64_t axis = call.attrs.integer("axis");
  const AxisView v = view_axis(call.in(0), axis);
  const std::int64_t taken = call.out().dims[axis], total = call.out().count();
  const T* x = static_cast<const T*>(call.in(0).pointer);
  const Index* indices = call.in(1).data<Index>();
  T* y = static_cast<T*>(call.out().pointer);
  return [=](Stream&) {
    check_indices(indices, total, v.size);
    parallel_for(v.outer * taken,
                 std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(v.inner, 1)),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t row = begin; row < end; ++row) {
                     const T* from = x + row / taken * v.size * v.inner;
                     const Index* at = indices + row * v.inner;
                     T* to = y + row * v.inner;
                     for (std::int64_t i = 0; i < v.inner; ++i) to[i] = from[at[i] * v.inner + i];
                   }
                 });
  };
}

template <typename T>
Launch gather_elements(const Call& call) {
  return for_index_type(call.in(1),
                        [&](auto index) { return bind_gather_elements<T, decltype(index)>(call); });
}

template <typename T>
Launch take(const Call& call) {
  return for_index_type(call.in(1),
                        [&](auto index) { return bind_take<T, decltype(index)>(call); });
}

Launch bind_gather(const Call& call) {
  const AxisView v = view_axis(call.in(0), call.attrs.integer("axis"));
  if (v.inner != 1) {
    return for_index_type(call.in(1),
                          [&](auto index) { return bind_gather_rows<decltype(index)>(call); });
  }
  switch (size_of(call.out().dtype)) {
    case 1:
      return gather_elements<std::uint8_t>(call);
    case 4:
      return gather_elements<std::uint32_t>(call);
    default:
      return gather_elements<std::uint64_t>(call);
  }
}

Launch bind_take_along_axis(const Call& call) {
  switch (size_of(call.out().dtype)) {
    case 1:
      return take<std::uint8_t>(call);
    case 4:
      return take<std::uint32_t>(call);
    default:
      return take<std::uint64_t>(call);
  }
}

Launch bind_one_hot(const Call& call) {
  return for_index_type(call.in(0), [&](auto index) -> Launch {
    using Index = decltype(index);
    const std::int64_t classes = call.attrs.integer("classes"), n = call.in(0).count();
    const Index* indices = call.in(0).data<Index>();
    float* y = call.out().data<float>();
    return [=](Stream&) {
      check_indices(indices, n, classes);
      std::fill(y, y + n * classes, 0.0f);
      for (std::int64_t i = 0; i < n; ++i) y[i * classes + std::int64_t(indices[i])] = 1.0f;
    };
  });
}

}  // namespace

MB_KERNEL("gather", Device::kCpu, bind_gather)
MB_KERNEL("take_along_axis", Device::kCpu, bind_take_along_axis)
MB_KERNEL("one_hot", Device::kCpu, bind_one_hot)

}  // namespace mb::MB_ISA
