// Broadcasting for CUDA's elementwise kernels; the axes come from mb/elementwise.h, as on the CPU.
#pragma once

#include "mb/device_kernel.h"
#include "mb/elementwise.h"

namespace mb {

// Where the elements of N operands lie that belong to the output's element `index` (in the order
// of its memory). A plain struct: it travels as a kernel's parameter.
template <int N>
struct DeviceLoop {
  std::int64_t count;  // elements of the output
  int axes;            // at least one
  std::int64_t sizes[kMaxRank];
  std::int64_t strides[N][kMaxRank];

  __device__ void locate(std::int64_t index, std::int64_t (&offsets)[N]) const {
    for (int k = 0; k < N; ++k) offsets[k] = 0;
#pragma unroll 1
    for (int axis = axes - 1; axis > 0; --axis) {
      const std::int64_t rest = index / sizes[axis];
      const std::int64_t at = index - rest * sizes[axis];
      for (int k = 0; k < N; ++k) offsets[k] += at * strides[k][axis];
      index = rest;
    }
    for (int k = 0; k < N; ++k) offsets[k] += index * strides[k][0];
  }
};

// `operands`: the output first, then N inputs that broadcast to it.
template <int N>
DeviceLoop<N> device_loop(const std::array<Tensor, N + 1>& operands) {
  const MB_ISA::Loop<N + 1> host = MB_ISA::make_loop<N + 1>(operands);
  DeviceLoop<N> loop{operands[0].count(), host.rank + 1, {}, {}};
  for (int axis = 0; axis <= host.rank; ++axis) {
    const bool innermost = axis == host.rank;
    loop.sizes[axis] = innermost ? host.length : host.sizes[axis];
    for (int k = 0; k < N; ++k) {
      loop.strides[k][axis] = innermost ? host.step[k + 1] : host.strides[k + 1][axis];
    }
  }
  return loop;
}

}  // namespace mb
