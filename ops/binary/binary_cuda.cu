// Elementwise functions of two broadcast operands.
#include "mb/device_elementwise.h"
#include "ops/binary/functors.h"

namespace mb {

template <typename Out, typename In, typename F>
__global__ void binary_kernel(DevicePointer<Out> y, DevicePointer<const In> a,
                              DevicePointer<const In> b,
                              const __grid_constant__ DeviceLoop<2> loop) {
  for (std::int64_t i = grid_thread(); i < loop.count; i += grid_threads()) {
    std::int64_t at[2];
    loop.locate(i, at);
    y[i] = F{}(a[at[0]], b[at[1]]);
  }
}

namespace {

constexpr Device kDevice = Device::kCuda;

template <typename In, typename F>
Launch bind_typed(const Call& call) {
  using Out = decltype(F{}(In{}, In{}));
  const auto loop = device_loop<2>({call.out(), call.in(0), call.in(1)});
  const auto y = device_data<Out>(call.out());
  const auto a = device_data<const In>(call.in(0)), b = device_data<const In>(call.in(1));
  return [=](Stream& stream) {
    launch(stream, grid_over(loop.count), binary_kernel<Out, In, F>, y, a, b, loop);
  };
}

}  // namespace

#include "ops/binary/table.h"

}  // namespace mb
