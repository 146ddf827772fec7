// Elementwise functions of two broadcast operands.
#include "mb/elementwise.h"
#include "mb/kernel.h"
#include "ops/binary/functors.h"

namespace mb::MB_ISA {
namespace {

template <typename In, typename F>
Launch bind_typed(const Call& call) {
  using Out = decltype(F{}(In{}, In{}));
  const Loop<3> loop = make_loop<3>({call.out(), call.in(0), call.in(1)});
  Out* y = call.out().data<Out>();
  const In* a = call.in(0).data<In>();
  const In* b = call.in(1).data<In>();
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 3>& at, std::int64_t n) {
      map_row(y + at[0], a + at[1], b + at[2], n, loop.step[1], loop.step[2], F{});
    });
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

template <typename F>
Launch bind_bool(const Call& call) {
  return bind_typed<bool, F>(call);
}

template <typename F>
Launch bind_float(const Call& call) {
  return bind_typed<float, F>(call);
}

}  // namespace

MB_KERNEL("add", Device::kCpu, bind_binary<Add>)
MB_KERNEL("sub", Device::kCpu, bind_binary<Sub>)
MB_KERNEL("mul", Device::kCpu, bind_binary<Mul>)
MB_KERNEL("maximum", Device::kCpu, bind_binary<Maximum>)
MB_KERNEL("minimum", Device::kCpu, bind_binary<Minimum>)
MB_KERNEL("less", Device::kCpu, bind_binary<Less>)
MB_KERNEL("less_equal", Device::kCpu, bind_binary<LessEqual>)
MB_KERNEL("greater", Device::kCpu, bind_binary<Greater>)
MB_KERNEL("greater_equal", Device::kCpu, bind_binary<GreaterEqual>)
MB_KERNEL("equal", Device::kCpu, bind_equality<Equal>)
MB_KERNEL("not_equal", Device::kCpu, bind_equality<NotEqual>)
MB_KERNEL("logical_and", Device::kCpu, bind_bool<LogicalAnd>)
MB_KERNEL("logical_or", Device::kCpu, bind_bool<LogicalOr>)
MB_KERNEL("div", Device::kCpu, bind_float<Div>)
MB_KERNEL("pow", Device::kCpu, bind_float<Pow>)

}  // namespace mb::MB_ISA
