// The scalar functions of the binary family, for CPU and CUDA kernels.
#pragma once

#include <cmath>

#include "mb/wrapping.h"

#ifdef __CUDACC__
#define MB_FUNCTOR __host__ __device__
#else
#define MB_FUNCTOR
#endif

namespace mb {

struct Add {
  template <typename T>
  MB_FUNCTOR T operator()(T a, T b) const {
    return T(Wrapping<T>(a) + Wrapping<T>(b));
  }
};
struct Sub {
  template <typename T>
  MB_FUNCTOR T operator()(T a, T b) const {
    return T(Wrapping<T>(a) - Wrapping<T>(b));
  }
};
struct Mul {
  template <typename T>
  MB_FUNCTOR T operator()(T a, T b) const {
    return T(Wrapping<T>(a) * Wrapping<T>(b));
  }
};
struct Div {
  template <typename T>
  MB_FUNCTOR T operator()(T a, T b) const {
    return a / b;
  }
};
struct Pow {
  template <typename T>
  MB_FUNCTOR T operator()(T a, T b) const {
    return std::pow(a, b);
  }
};
// NaN in either operand gives NaN, as numpy and torch do.
struct Maximum {
  template <typename T>
  MB_FUNCTOR T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};
struct Minimum {
  template <typename T>
  MB_FUNCTOR T operator()(T a, T b) const {
    return a < b || a != a ? a : b;
  }
};
struct Less {
  template <typename T>
  MB_FUNCTOR bool operator()(T a, T b) const {
    return a < b;
  }
};
struct LessEqual {
  template <typename T>
  MB_FUNCTOR bool operator()(T a, T b) const {
    return a <= b;
  }
};
struct Greater {
  template <typename T>
  MB_FUNCTOR bool operator()(T a, T b) const {
    return a > b;
  }
};
struct GreaterEqual {
  template <typename T>
  MB_FUNCTOR bool operator()(T a, T b) const {
    return a >= b;
  }
};
struct Equal {
  template <typename T>
  MB_FUNCTOR bool operator()(T a, T b) const {
    return a == b;
  }
};
struct NotEqual {
  template <typename T>
  MB_FUNCTOR bool operator()(T a, T b) const {
    return a != b;
  }
};
struct LogicalAnd {
  MB_FUNCTOR bool operator()(bool a, bool b) const { return a & b; }
};
struct LogicalOr {
  MB_FUNCTOR bool operator()(bool a, bool b) const { return a | b; }
};

}  // namespace mb
