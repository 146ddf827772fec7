// Activation functions.
#include "ops/unary/bind.h"

namespace mb::MB_ISA {
namespace {

Launch bind_leaky_relu(const Call& call) {
  return bind_unary<float>(call, LeakyRelu{float(call.attrs.real("slope"))});
}

}  // namespace

MB_KERNEL("relu", Device::kCpu, bind_arithmetic<Relu>)
MB_KERNEL("leaky_relu", Device::kCpu, bind_leaky_relu)
MB_KERNEL("sigmoid", Device::kCpu, bind_float<Sigmoid>)
MB_KERNEL("tanh", Device::kCpu, bind_float<Tanh>)
MB_KERNEL("silu", Device::kCpu, bind_float<Silu>)
MB_KERNEL("gelu", Device::kCpu, bind_float<Gelu>)
MB_KERNEL("softplus", Device::kCpu, bind_float<Softplus>)
MB_KERNEL("erf", Device::kCpu, bind_float<Erf>)

}  // namespace mb::MB_ISA
