// Slice, and its adjoint Place, for elements of 1, 4 and 8 bytes.
#include <bit>

#include "mb/elementwise.h"
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

template <typename T>
Launch bind_slice(const Call& call) {
  const Tensor &x = call.in(0), &y = call.out();
  const auto &starts = call.attrs.integers("starts"), &steps = call.attrs.integers("steps");
  const auto order = memory_order(y);
  const Dims in = x.strides(), out = y.strides();
  Dims sizes{};
  std::array<Dims, 2> strides{};
  std::int64_t base = 0;
  for (int i = 0; i < y.rank; ++i) {
    const int axis = order[i];
    sizes[i] = y.dims[axis];
    strides[0][i] = out[axis];
    strides[1][i] = in[axis] * steps[std::size_t(axis)];
    base += in[axis] * starts[std::size_t(axis)];
  }
  const Loop<2> loop = loop_over<2>(y.rank, sizes, strides);
  T* to = static_cast<T*>(y.pointer);
  const T* from = static_cast<const T*>(x.pointer) + (y.count() > 0 ? base : 0);
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
      map_row(to + at[0], from + at[1], n, loop.step[1], [](T v) { return v; });
    });
  };
}

// The axes of Place in memory order, the innermost ones merged while x covers them whole.
struct Lattice {
  int rank = 0;
  Dims out_sizes{}, in_sizes{}, starts{}, steps{};

  // Offset of x's row for a row of the output, or -1 where the row holds no element of x.
  std::int64_t row(std::int64_t index) const {
    std::int64_t offset = 0, stride = in_sizes[rank - 1];
    for (int axis = rank - 2; axis >= 0; --axis) {
      const std::int64_t ahead =
          (index % out_sizes[axis] - starts[axis]) * (steps[axis] < 0 ? -1 : 1);
      const std::int64_t step = steps[axis] < 0 ? -steps[axis] : steps[axis];
      index /= out_sizes[axis];
      if (ahead < 0 || ahead % step != 0 || ahead / step >= in_sizes[axis]) return -1;
      offset += ahead / step * stride;
      stride *= in_sizes[axis];
    }
    return offset;
  }
};

Lattice make_lattice(const Call& call) {
  const Tensor &x = call.in(0), &y = call.out();
  const auto &starts = call.attrs.integers("starts"), &steps = call.attrs.integers("steps");
  const auto order = memory_order(y);
  Lattice l;
  l.rank = 1;
  l.out_sizes[0] = l.in_sizes[0] = l.steps[0] = 1;  // a scalar has one row of one element
  for (int i = 0; i < y.rank; ++i) {
    const auto axis = std::size_t(order[i]);
    const std::int64_t in = x.dims[axis], out = y.dims[axis];
    const std::int64_t start = starts[axis], step = in == 1 ? 1 : steps[axis];
    if (i > 0 && in == out && step == 1 && l.steps[l.rank - 1] == 1) {
      // x covers this axis whole: it is one with the axis before.
      l.out_sizes[l.rank - 1] *= out;
      l.in_sizes[l.rank - 1] *= in;
      l.starts[l.rank - 1] *= out;
      continue;
    }
    if (i > 0) ++l.rank;
    l.out_sizes[l.rank - 1] = out;
    l.in_sizes[l.rank - 1] = in;
    l.starts[l.rank - 1] = start;
    l.steps[l.rank - 1] = step;
  }
  return l;
}

template <typename T>
Launch bind_place(const Call& call, T value) {
  const Tensor& y = call.out();
  const Lattice l = make_lattice(call);
  T* to = static_cast<T*>(y.pointer);
  const T* from = static_cast<const T*>(call.in(0).pointer);
  const std::int64_t width = l.out_sizes[l.rank - 1], n = l.in_sizes[l.rank - 1];
  const std::int64_t start = l.starts[l.rank - 1], step = l.steps[l.rank - 1];
  const std::int64_t rows = width == 0 ? 0 : y.count() / width;
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(width, 1));
  return [=](Stream&) {
    parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        T* t = to + row * width;
        const std::int64_t offset = n == 0 ? -1 : l.row(row);
        if (offset < 0) {
          std::fill(t, t + width, value);
        } else if (step == 1) {
          std::fill(t, t + start, value);
          std::copy(from + offset, from + offset + n, t + start);
          std::fill(t + start + n, t + width, value);
        } else {
          std::fill(t, t + width, value);
          for (std::int64_t i = 0; i < n; ++i) t[start + i * step] = from[offset + i];
        }
      }
    });
  };
}

Launch bind_slice_any(const Call& call) {
  switch (size_of(call.out().dtype)) {
    case 1:
      return bind_slice<std::uint8_t>(call);
    case 4:
      return bind_slice<std::uint32_t>(call);
    default:
      return bind_slice<std::uint64_t>(call);
  }
}

Launch bind_place_any(const Call& call) {
  const double value = call.attrs.real("value");
  switch (call.out().dtype) {
    case DType::kFloat32:
      return bind_place<std::uint32_t>(call, std::bit_cast<std::uint32_t>(float(value)));
    case DType::kInt32:
      return bind_place<std::uint32_t>(call, std::uint32_t(std::int32_t(value)));
    case DType::kInt64:
      return bind_place<std::uint64_t>(call, std::uint64_t(std::int64_t(value)));
    case DType::kUint8:
      return bind_place<std::uint8_t>(call, std::uint8_t(value));
    case DType::kBool:
      return bind_place<std::uint8_t>(call, std::uint8_t(value != 0));
    default:
      fail("no kernel for ", name_of(call.out().dtype));
  }
}

}  // namespace

MB_KERNEL("slice", Device::kCpu, bind_slice_any)
MB_KERNEL("place", Device::kCpu, bind_place_any)

}  // namespace mb::MB_ISA
