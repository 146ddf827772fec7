// The scalar functions of the unary family and of their gradients.
#pragma once

#include <cmath>

#include "mb/math.h"
#include "mb/wrapping.h"

namespace mb::MB_ISA {

struct Exp {
  float operator()(float x) const { return fast_exp(x); }
};
struct Log {
  float operator()(float x) const { return fast_log(x); }
};
struct Sqrt {
  float operator()(float x) const { return std::sqrt(x); }
};
struct Rsqrt {
  float operator()(float x) const { return 1.0f / std::sqrt(x); }
};
struct Floor {
  float operator()(float x) const { return std::floor(x); }
};
struct Round {  // half to even, the processor's default
  float operator()(float x) const { return __builtin_nearbyintf(x); }
};
struct Erf {
  float operator()(float x) const { return fast_erf(x); }
};
struct Softplus {
  float operator()(float x) const { return fast_softplus(x); }
};
struct Sigmoid {
  float operator()(float x) const { return fast_sigmoid(x); }
};
struct Tanh {
  float operator()(float x) const { return fast_tanh(x); }
};
struct Silu {
  float operator()(float x) const { return x / (1.0f + fast_exp(-x)); }
};
struct Gelu {
  float operator()(float x) const { return 0.5f * x * (1.0f + fast_erf(x * 0.70710678f)); }
};
struct IsFinite {
  bool operator()(float x) const { return std::fabs(x) <= std::numeric_limits<float>::max(); }
};
struct LogicalNot {
  bool operator()(bool x) const { return !x; }
};

struct Abs {
  template <typename T>
  T operator()(T x) const {
    if constexpr (std::is_integral_v<T>) return x < 0 ? T(-Wrapping<T>(x)) : x;
    return T(std::abs(x));
  }
};
struct Neg {
  template <typename T>
  T operator()(T x) const {
    return T(-Wrapping<T>(x));
  }
};
struct Sign {
  template <typename T>
  T operator()(T x) const {
    return x != x ? x : T(x > T(0)) - T(x < T(0));
  }
};
struct Square {
  template <typename T>
  T operator()(T x) const {
    return T(Wrapping<T>(x) * Wrapping<T>(x));
  }
};
struct Relu {
  template <typename T>
  T operator()(T x) const {
    return x < T(0) ? T(0) : x;
  }  // a NaN stays
};
template <typename T>
struct Clip {
  T low, high;
  T operator()(T x) const {
    const T above = x < low ? low : x;
    return above > high ? high : above;
  }
};
struct LeakyRelu {
  float slope;
  float operator()(float x) const { return x > 0.0f ? x : slope * x; }
};

// Gradients: (saved value, dy) -> dx. Which value is saved stands in activations.py.
struct ReluGrad {
  float operator()(float y, float dy) const { return y > 0.0f ? dy : 0.0f; }
};
struct LeakyReluGrad {
  float slope;
  float operator()(float y, float dy) const { return y > 0.0f ? dy : slope * dy; }
};
struct SigmoidGrad {
  float operator()(float y, float dy) const { return dy * (y * (1.0f - y)); }
};
struct TanhGrad {
  float operator()(float y, float dy) const { return dy * (1.0f - y * y); }
};
struct SiluGrad {
  float operator()(float x, float dy) const {
    const float s = fast_sigmoid(x);
    return dy * (s * (1.0f + x * (1.0f - s)));
  }
};
struct GeluGrad {
  float operator()(float x, float dy) const {
    const float phi = 0.39894228f * fast_exp(-0.5f * x * x);
    return dy * (0.5f * (1.0f + fast_erf(x * 0.70710678f)) + x * phi);
  }
};

}  // namespace mb::MB_ISA
