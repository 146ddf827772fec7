// How a function of one operand becomes a kernel, for each set of element types.
#pragma once

#include "mb/elementwise.h"
#include "mb/kernel.h"
#include "ops/unary/functors.h"

namespace mb::MB_ISA {

template <typename In, typename F>
Launch bind_unary(const Call& call, const F& f) {
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
  return bind_unary<float>(call, F{});
}

template <typename F>
Launch bind_bool(const Call& call) {
  return bind_unary<bool>(call, F{});
}

template <typename F>
Launch bind_arithmetic(const Call& call) {
  switch (call.in(0).dtype) {
    case DType::kFloat32:
      return bind_unary<float>(call, F{});
    case DType::kInt32:
      return bind_unary<std::int32_t>(call, F{});
    case DType::kInt64:
      return bind_unary<std::int64_t>(call, F{});
    default:
      fail("no kernel for ", name_of(call.in(0).dtype));
  }
}

}  // namespace mb::MB_ISA
