// Optimiser steps: each one walk over parameter, gradient and state.
#include <cmath>

#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kGrain = 16384;

Launch bind_gradient_step(const Call& call) {
  const std::int64_t n = call.in(0).count();
  const float* p = call.in(0).data<float>();
  const float* g = call.in(1).data<float>();
  const float* lr = call.in(2).data<float>();
  const float* decay = call.in(3).data<float>();
  float* out = call.out(0).data<float>();
  return [=](Stream&) {
    const float rate = *lr, wd = *decay;
    parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) out[i] = p[i] - rate * (g[i] + wd * p[i]);
    });
  };
}

template <bool kNesterov>
Launch bind_sgd(const Call& call) {
  const std::int64_t n = call.in(0).count();
  const float* p = call.in(0).data<float>();
  const float* g = call.in(1).data<float>();
  const float* v = call.in(2).data<float>();
  const float* lr = call.in(3).data<float>();
  const float* momentum = call.in(4).data<float>();
  const float* decay = call.in(5).data<float>();
  float* new_p = call.out(0).data<float>();
  float* new_v = call.out(1).data<float>();
  return [=](Stream&) {
    const float rate = *lr, mu = *momentum, wd = *decay;
    parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const float old = p[i];
        const float d = g[i] + wd * old;
        const float moved = mu * v[i] + d;
        new_v[i] = moved;
        new_p[i] = old - rate * (kNesterov ? d + mu * moved : moved);
      }
    });
  };
}

Launch bind_sgd_update(const Call& call) {
  return call.attrs.flag("nesterov") ? bind_sgd<true>(call) : bind_sgd<false>(call);
}

Launch bind_adamw(const Call& call) {
  const std::int64_t n = call.in(0).count();
  const float* p = call.in(0).data<float>();
  const float* g = call.in(1).data<float>();
  const float* m = call.in(2).data<float>();
  const float* v = call.in(3).data<float>();
  const float* lr = call.in(4).data<float>();
  const float* decay = call.in(5).data<float>();
  const float* step = call.in(6).data<float>();
  const double beta1 = call.attrs.real("beta1"), beta2 = call.attrs.real("beta2");
  const float eps = float(call.attrs.real("eps"));
  float* new_p = call.out(0).data<float>();
  float* new_m = call.out(1).data<float>();
  float* new_v = call.out(2).data<float>();
  return [=](Stream&) {
    const double count = double(*step);
    const double correction1 = 1.0 - std::pow(beta1, count);
    const double correction2 = 1.0 - std::pow(beta2, count);
    const float keep = float(1.0 - double(*lr) * double(*decay));
    const float rate = float(double(*lr) / correction1);
    const float spread = float(1.0 / std::sqrt(correction2));
    const float b1 = float(beta1), c1 = float(1.0 - beta1);
    const float b2 = float(beta2), c2 = float(1.0 - beta2);
    parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const float grad = g[i];
        const float mean = b1 * m[i] + c1 * grad;
        const float square = b2 * v[i] + c2 * grad * grad;
        new_m[i] = mean;
        new_v[i] = square;
        new_p[i] = p[i] * keep - rate * mean / (std::sqrt(square) * spread + eps);
      }
    });
  };
}

}  // namespace

MB_KERNEL("gradient_step", Device::kCpu, bind_gradient_step)
MB_KERNEL("sgd_update", Device::kCpu, bind_sgd_update)
MB_KERNEL("adamw_update", Device::kCpu, bind_adamw)

}  // namespace mb::MB_ISA
