// Elementwise functions of one operand.
#include "ops/unary/bind.h"

namespace mb::MB_ISA {
namespace {

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
  return bind_unary<T>(call, Clip<T>{low, high});
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

}  // namespace

MB_KERNEL("exp", Device::kCpu, bind_float<Exp>)
MB_KERNEL("log", Device::kCpu, bind_float<Log>)
MB_KERNEL("sqrt", Device::kCpu, bind_float<Sqrt>)
MB_KERNEL("rsqrt", Device::kCpu, bind_float<Rsqrt>)
MB_KERNEL("floor", Device::kCpu, bind_float<Floor>)
MB_KERNEL("round", Device::kCpu, bind_float<Round>)
MB_KERNEL("isfinite", Device::kCpu, bind_float<IsFinite>)
MB_KERNEL("logical_not", Device::kCpu, bind_bool<LogicalNot>)
MB_KERNEL("abs", Device::kCpu, bind_arithmetic<Abs>)
MB_KERNEL("neg", Device::kCpu, bind_arithmetic<Neg>)
MB_KERNEL("sign", Device::kCpu, bind_arithmetic<Sign>)
MB_KERNEL("square", Device::kCpu, bind_arithmetic<Square>)
MB_KERNEL("clip", Device::kCpu, bind_clip)

}  // namespace mb::MB_ISA
