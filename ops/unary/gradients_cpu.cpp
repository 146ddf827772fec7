// Gradients of activations in one sweep: (saved value, dy) -> dx.
#include "mb/elementwise.h"
#include "mb/kernel.h"
#include "ops/unary/functors.h"

namespace mb::MB_ISA {
namespace {

template <typename F>
Launch bind_with(const Call& call, const F& f) {
  const Loop<3> loop = make_loop<3>({call.out(), call.in(0), call.in(1)});
  float* dx = call.out().data<float>();
  const float* saved = call.in(0).data<float>();
  const float* dy = call.in(1).data<float>();
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 3>& at, std::int64_t n) {
      map_row(dx + at[0], saved + at[1], dy + at[2], n, loop.step[1], loop.step[2], f);
    });
  };
}

template <typename F>
Launch bind_gradient(const Call& call) {
  return bind_with(call, F{});
}

Launch bind_leaky_relu_grad(const Call& call) {
  return bind_with(call, LeakyReluGrad{float(call.attrs.real("slope"))});
}

}  // namespace

MB_KERNEL("relu_grad", Device::kCpu, bind_gradient<ReluGrad>)
MB_KERNEL("sigmoid_grad", Device::kCpu, bind_gradient<SigmoidGrad>)
MB_KERNEL("tanh_grad", Device::kCpu, bind_gradient<TanhGrad>)
MB_KERNEL("silu_grad", Device::kCpu, bind_gradient<SiluGrad>)
MB_KERNEL("gelu_grad", Device::kCpu, bind_gradient<GeluGrad>)
MB_KERNEL("leaky_relu_grad", Device::kCpu, bind_leaky_relu_grad)

}  // namespace mb::MB_ISA
