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

template <typename F>
Launch bind_binary(const Call& call) {
  switch (call.in(0).dtype) {
    case DType::kFloat32:
      return bind_typed<float, F>(call);
    case DType::kInt32:
      return bind_typed<std::int32_t, F>(call);
    case DType::kInt64:
      return bind_typed<std::int64_t, F>(call);
    default:
      fail("no kernel for ", name_of(call.in(0).dtype));
  }
}

// Equality has a meaning for every element type.
template <typename F>
Launch bind_equality(const Call& call) {
  switch (call.in(0).dtype) {
    case DType::kUint8:
      return bind_typed<std::uint8_t, F>(call);
    case DType::kBool:
      return bind_typed<bool, F>(call);
    default:
      return bind_binary<F>(call);
  }
}

}  // namespace

MB_KERNEL("add", Device::kCuda, bind_binary<Add>)
MB_KERNEL("sub", Device::kCuda, bind_binary<Sub>)
MB_KERNEL("mul", Device::kCuda, bind_binary<Mul>)
MB_KERNEL("maximum", Device::kCuda, bind_binary<Maximum>)
MB_KERNEL("minimum", Device::kCuda, bind_binary<Minimum>)
MB_KERNEL("less", Device::kCuda, bind_binary<Less>)
MB_KERNEL("less_equal", Device::kCuda, bind_binary<LessEqual>)
MB_KERNEL("greater", Device::kCuda, bind_binary<Greater>)
MB_KERNEL("greater_equal", Device::kCuda, bind_binary<GreaterEqual>)
MB_KERNEL("equal", Device::kCuda, bind_equality<Equal>)
MB_KERNEL("not_equal", Device::kCuda, bind_equality<NotEqual>)
MB_KERNEL("logical_and", Device::kCuda, bind_typed<bool, LogicalAnd>)
MB_KERNEL("logical_or", Device::kCuda, bind_typed<bool, LogicalOr>)
MB_KERNEL("div", Device::kCuda, bind_typed<float, Div>)
MB_KERNEL("pow", Device::kCuda, bind_typed<float, Pow>)

}  // namespace mb
