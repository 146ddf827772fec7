// Elementwise functions of one operand.
#include "mb/elementwise.h"
#include "mb/kernel.h"
#include "ops/unary/functors.h"

namespace mb::MB_ISA {
namespace {

template <typename In, typename F>
Launch bind_typed(const Call& call, const F& f) {
  using Out = decltype(f(In{}));
  const Loop<2> loop = make_loop<2>({call.out(), call.in(0)});
  Out* y = call.out().data<Out>();
  const In* x = call.in(0).data<In>();
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
      map_row(y + at[0], x + at[1], n, loop.step[1], f);
    });
  };
}

template <typename F>
Launch bind_float(const Call& call) {
  return bind_typed<float>(call, F{});
}

template <typename F>
Launch bind_bool(const Call& call) {
  return bind_typed<bool>(call, F{});
}

template <typename F>
Launch bind_arithmetic(const Call& call) {
  switch (call.in(0).dtype) {
    case DType::kFloat32:
      return bind_typed<float>(call, F{});
    case DType::kInt32:
      return bind_typed<std::int32_t>(call, F{});
    case DType::kInt64:
      return bind_typed<std::int64_t>(call, F{});
    default:
      fail("no kernel for ", name_of(call.in(0).dtype));
  }
}

template <typename T>
Launch bind_clip_typed(const Call& call) {
  using Limits = std::numeric_limits<T>;
  T low = Limits::lowest(), high = Limits::max();
  if constexpr (Limits::has_infinity) {
    low = -Limits::infinity();
    high = Limits::infinity();
  }
  if (call.attrs.has("low")) low = T(call.attrs.real("low"));
  if (call.attrs.has("high")) high = T(call.attrs.real("high"));
  return bind_typed<T>(call, Clip<T>{low, high});
}

Launch bind_clip(const Call& call) {
  switch (call.in(0).dtype) {
    case DType::kFloat32:
      return bind_clip_typed<float>(call);
    case DType::kInt32:
      return bind_clip_typed<std::int32_t>(call);
    case DType::kInt64:
      return bind_clip_typed<std::int64_t>(call);
    default:
      fail("no kernel for ", name_of(call.in(0).dtype));
  }
}

Launch bind_leaky_relu(const Call& call) {
  return bind_typed<float>(call, LeakyRelu{float(call.attrs.real("slope"))});
}

}  // namespace

MB_KERNEL("exp", Device::kCpu, bind_float<Exp>)
MB_KERNEL("log", Device::kCpu, bind_float<Log>)
MB_KERNEL("sqrt", Device::kCpu, bind_float<Sqrt>)
MB_KERNEL("rsqrt", Device::kCpu, bind_float<Rsqrt>)
MB_KERNEL("floor", Device::kCpu, bind_float<Floor>)
MB_KERNEL("round", Device::kCpu, bind_float<Round>)
MB_KERNEL("erf", Device::kCpu, bind_float<Erf>)
MB_KERNEL("softplus", Device::kCpu, bind_float<Softplus>)
MB_KERNEL("sigmoid", Device::kCpu, bind_float<Sigmoid>)
MB_KERNEL("tanh", Device::kCpu, bind_float<Tanh>)
MB_KERNEL("silu", Device::kCpu, bind_float<Silu>)
MB_KERNEL("gelu", Device::kCpu, bind_float<Gelu>)
MB_KERNEL("isfinite", Device::kCpu, bind_float<IsFinite>)
MB_KERNEL("logical_not", Device::kCpu, bind_bool<LogicalNot>)
MB_KERNEL("abs", Device::kCpu, bind_arithmetic<Abs>)
MB_KERNEL("neg", Device::kCpu, bind_arithmetic<Neg>)
MB_KERNEL("sign", Device::kCpu, bind_arithmetic<Sign>)
MB_KERNEL("square", Device::kCpu, bind_arithmetic<Square>)
MB_KERNEL("relu", Device::kCpu, bind_arithmetic<Relu>)
MB_KERNEL("clip", Device::kCpu, bind_clip)
MB_KERNEL("leaky_relu", Device::kCpu, bind_leaky_relu)

}  // namespace mb::MB_ISA
