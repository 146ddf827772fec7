// Transpose: rows where the innermost axis stays, else tiles that stay in the first cache.
#include "mb/elementwise.h"
#include "mb/kernel.h"
#include "mb/tiles.h"

namespace mb::MB_ISA {
namespace {

Loop<2> loop_of(const Call& call) {
  const Tensor &x = call.in(0), &y = call.out();
  const auto& perm = call.attrs.integers("perm");
  const Dims out = y.strides(), in = x.strides();
  std::array<Dims, 2> strides{};
  for (int a = 0; a < y.rank; ++a) {
    strides[0][a] = out[a];
    strides[1][a] = in[perm[std::size_t(a)]];
  }
  return loop_over<2>(y.rank, y.dims, strides);
}

template <typename T>
Launch bind_typed(const Call& call) {
  const Loop<2> loop = loop_of(call);
  T* y = static_cast<T*>(call.out().pointer);
  const T* x = static_cast<const T*>(call.in(0).pointer);
  int inner = -1;  // the axis that is contiguous in x
  for (int a = 0; a < loop.rank; ++a) {
    if (loop.strides[1][a] == 1) inner = a;
  }
  if (loop.step[1] == 1 || inner < 0) {
    return [=](Stream&) {
      run_loop(loop, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
        map_row(y + at[0], x + at[1], n, loop.step[1], [](T v) { return v; });
      });
    };
  }
  // Everything but the two innermost axes is a batch of matrices.
  const std::int64_t height = loop.sizes[inner];
  Loop<2> batch = loop;
  batch.rows /= height;
  batch.sizes[inner] = 1;
  const std::int64_t y_step = loop.strides[0][inner], x_step = loop.step[1];
  constexpr std::int64_t kStrip = 32;
  const std::int64_t strips = (height + kStrip - 1) / kStrip;
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / (kStrip * loop.length));
  return [=](Stream&) {
    parallel_for(batch.rows * strips, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t item = begin; item < end; ++item) {
        const auto at = batch.row(item / strips);
        const std::int64_t first = item % strips * kStrip;
        transpose_strip(y + at[0] + first * y_step, y_step, x + at[1] + first, x_step,
                        std::min(kStrip, height - first), loop.length);
      }
    });
  };
}

Launch bind_transpose(const Call& call) {
  switch (size_of(call.out().dtype)) {
    case 1:
      return bind_typed<std::uint8_t>(call);
    case 4:
      return bind_typed<std::uint32_t>(call);
    default:
      return bind_typed<std::uint64_t>(call);
  }
}

}  // namespace

MB_KERNEL("transpose", Device::kCpu, bind_transpose)

}  // namespace mb::MB_ISA
