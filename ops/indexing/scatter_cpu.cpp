// Adding by index. Threads own places of the output, so that each sum has one order in every run.
#include "ops/indexing/indices.h"

namespace mb::MB_ISA {
namespace {

template <typename T, typename Index>
Launch bind_scatter(const Call& call) {
  const AxisView v = view_axis(call.out(), call.attrs.integer("axis"));
  const Index* indices = call.in(0).data<Index>();
  const std::int64_t n = call.in(0).count();
  const T* updates = call.in(1).data<T>();
  T* y = call.out().data<T>();
  const std::int64_t work =
      std::max<std::int64_t>(1, n * v.inner / std::max<std::int64_t>(v.size, 1));
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / work);
  return [=](Stream&) {
    check_indices(indices, n, v.size);
    // A piece is a range of places; its thread walks all indices and adds those that fall into it.
    parallel_for(v.outer * v.size, grain, [&](std::int64_t begin, std::int64_t end) {
      std::fill(y + begin * v.inner, y + end * v.inner, T(0));
      for (std::int64_t o = begin / v.size; o * v.size < end; ++o) {
        const std::int64_t first = std::max<std::int64_t>(begin - o * v.size, 0);
        const std::int64_t last = std::min(end - o * v.size, v.size);
        for (std::int64_t i = 0; i < n; ++i) {
          const std::int64_t place = std::int64_t(indices[i]);
          if (place < first || place >= last) continue;
          T* to = y + (o * v.size + place) * v.inner;
          const T* from = updates + (o * n + i) * v.inner;
#pragma omp simd
          for (std::int64_t k = 0; k < v.inner; ++k) to[k] += from[k];
        }
      }
    });
  };
}

template <typename T, typename Index>
Launch bind_scatter_along(const Call& call) {
  const std::int64_t axis = call.attrs.integer("axis");
  const AxisView v = view_axis(call.out(), axis);
  const std::int64_t given = call.in(1).dims[axis], total = call.in(1).count();
  const Index* indices = call.in(0).data<Index>();
  const T* updates = call.in(1).data<T>();
  T* y = call.out().data<T>();
  const std::int64_t slab = std::max<std::int64_t>(1, (v.size + given) * v.inner);
  return [=](Stream&) {
    check_indices(indices, total, v.size);
    parallel_for(v.outer, std::max<std::int64_t>(1, 16384 / slab),
                 [&](std::int64_t begin, std::int64_t end) {
                   std::fill(y + begin * v.size * v.inner, y + end * v.size * v.inner, T(0));
                   for (std::int64_t row = begin * given; row < end * given; ++row) {
                     T* to = y + row / given * v.size * v.inner;
                     const Index* at = indices + row * v.inner;
                     const T* from = updates + row * v.inner;
                     for (std::int64_t i = 0; i < v.inner; ++i) to[at[i] * v.inner + i] += from[i];
                   }
                 });
  };
}

template <typename T>
Launch scatter(const Call& call) {
  return for_index_type(call.in(0),
                        [&](auto index) { return bind_scatter<T, decltype(index)>(call); });
}

template <typename T>
Launch scatter_along(const Call& call) {
  return for_index_type(call.in(0),
                        [&](auto index) { return bind_scatter_along<T, decltype(index)>(call); });
}

Launch bind_scatter_add(const Call& call) {
  switch (call.in(1).dtype) {
    case DType::kFloat32:
      return scatter<float>(call);
    case DType::kInt32:
      return scatter<std::int32_t>(call);
    case DType::kInt64:
      return scatter<std::int64_t>(call);
    default:
      fail("no kernel for ", name_of(call.in(1).dtype));
  }
}

Launch bind_scatter_along_axis(const Call& call) {
  switch (call.in(1).dtype) {
    case DType::kFloat32:
      return scatter_along<float>(call);
    case DType::kInt32:
      return scatter_along<std::int32_t>(call);
    case DType::kInt64:
      return scatter_along<std::int64_t>(call);
    default:
      fail("no kernel for ", name_of(call.in(1).dtype));
  }
}

}  // namespace

MB_KERNEL("scatter_add", Device::kCpu, bind_scatter_add)
MB_KERNEL("scatter_along_axis", Device::kCpu, bind_scatter_along_axis)

}  // namespace mb::MB_ISA
