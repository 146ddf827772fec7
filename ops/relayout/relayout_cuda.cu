// Layout changes and plain copies: writes follow each other in memory, reads are strided.
#include "mb/device_elementwise.h"

namespace mb {

template <typename T>
__global__ void relayout_kernel(DevicePointer<T> y, DevicePointer<const T> x,
                                const __grid_constant__ DeviceLoop<1> loop) {
  for (std::int64_t i = grid_thread(); i < loop.count; i += grid_threads()) {
    std::int64_t at[1];
    loop.locate(i, at);
    y[i] = x[at[0]];
  }
}

namespace {

// T: any type of the elements' size.
template <typename T>
Launch bind_sized(const Call& call) {
  const auto loop = device_loop<1>({call.out(), call.in(0)});
  const DevicePointer<T> y(static_cast<T*>(call.out().pointer));
  const DevicePointer<const T> x(static_cast<const T*>(call.in(0).pointer));
  return [=](Stream& stream) {
    launch(stream, grid_over(loop.count), relayout_kernel<T>, y, x, loop);
  };
}

Launch bind_relayout(const Call& call) {
  switch (size_of(call.in(0).dtype)) {
    case 1:
      return bind_sized<std::uint8_t>(call);
    case 4:
      return bind_sized<std::uint32_t>(call);
    default:
      return bind_sized<std::uint64_t>(call);
  }
}

}  // namespace

MB_KERNEL("relayout", Device::kCuda, bind_relayout)
MB_KERNEL("copy", Device::kCuda, bind_relayout)

}  // namespace mb
