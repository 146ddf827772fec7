// Maximum, minimum, any and all over axes; positions of the maximum and minimum along one.
#include <limits>

#include "ops/reduce/reduction.h"

namespace mb::MB_ISA {
namespace {

template <typename T>
constexpr T lowest() {
  if constexpr (std::numeric_limits<T>::has_infinity) return -std::numeric_limits<T>::infinity();
  return std::numeric_limits<T>::lowest();
}
template <typename T>
constexpr T highest() {
  if constexpr (std::numeric_limits<T>::has_infinity) return std::numeric_limits<T>::infinity();
  return std::numeric_limits<T>::max();
}

// A NaN wins, as in numpy and torch.
template <typename T>
struct Maximum {
  using Element = T;
  using Block = T;
  using Total = T;
  static T start() { return lowest<T>(); }
  static T step(T a, T x) { return (a > x) | (a != a) ? a : x; }
  static T merge(T a, T b) { return step(a, b); }
  static T join(T a, T b) { return step(a, b); }
  static T finish(T total, std::int64_t) { return total; }
};
template <typename T>
struct Minimum : Maximum<T> {
  static T start() { return highest<T>(); }
  static T step(T a, T x) { return (a < x) | (a != a) ? a : x; }
  static T merge(T a, T b) { return step(a, b); }
  static T join(T a, T b) { return step(a, b); }
};
struct Any {
  using Element = bool;
  using Block = bool;
  using Total = bool;
  static bool start() { return false; }
  static bool step(bool a, bool x) { return a | x; }
  static bool merge(bool a, bool b) { return a | b; }
  static bool join(bool a, bool b) { return a | b; }
  static bool finish(bool total, std::int64_t) { return total; }
};
struct All : Any {
  static bool start() { return true; }
  static bool step(bool a, bool x) { return a & x; }
  static bool merge(bool a, bool b) { return a & b; }
  static bool join(bool a, bool b) { return a & b; }
};

// The first position whose element no other beats; a NaN beats all numbers.
template <typename T, typename Better, typename Rule>
Launch bind_position(const Call& call) {
  const Tensor& in = call.in(0);
  const std::int64_t axis = call.attrs.integer("axis");
  std::int64_t outer = 1, inner = 1;
  for (int a = 0; a < in.rank; ++a) {
    if (a < axis) outer *= in.dims[a];
    if (a > axis) inner *= in.dims[a];
  }
  const std::int64_t n = in.dims[axis];
  const T* x = in.data<T>();
  std::int64_t* y = call.out().data<std::int64_t>();
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(n, 1));
  return [=](Stream&) {
    parallel_for(outer * inner, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t item = begin; item < end; ++item) {
        const T* from = x + item / inner * n * inner + item % inner;
        std::int64_t at = 0;
        if (inner == 1) {  // the extreme first, with all lanes; then where it is
          const T extreme = reduce_stretch<Rule>(from, n);
          while (from[at] != extreme && (extreme == extreme || from[at] == from[at])) ++at;
          y[item] = at;
          continue;
        }
        T best = from[0];
        for (std::int64_t i = 1; i < n; ++i) {
          const T value = from[i * inner];
          const bool take = Better{}(value, best) || (value != value && best == best);
          best = take ? value : best;
          at = take ? i : at;
        }
        y[item] = at;
      }
    });
  };
}

struct Greater {
  template <typename T>
  bool operator()(T a, T b) const {
    return a > b;
  }
};
struct Less {
  template <typename T>
  bool operator()(T a, T b) const {
    return a < b;
  }
};

template <typename Better, template <typename> class Rule>
Launch bind_position_of(const Call& call) {
  switch (call.in(0).dtype) {
    case DType::kFloat32:
      return bind_position<float, Better, Rule<float>>(call);
    case DType::kInt32:
      return bind_position<std::int32_t, Better, Rule<std::int32_t>>(call);
    case DType::kInt64:
      return bind_position<std::int64_t, Better, Rule<std::int64_t>>(call);
    default:
      fail("no kernel for ", name_of(call.in(0).dtype));
  }
}

}  // namespace

MB_KERNEL("max", Device::kCpu, bind_reduction_of<Maximum>, workspace_of<Maximum>)
MB_KERNEL("min", Device::kCpu, bind_reduction_of<Minimum>, workspace_of<Minimum>)
MB_KERNEL("any", Device::kCpu, bind_reduction<Any>, reduction_workspace<Any>)
MB_KERNEL("all", Device::kCpu, bind_reduction<All>, reduction_workspace<All>)
MB_KERNEL("argmax", Device::kCpu, bind_position_of<Greater, Maximum>)
MB_KERNEL("argmin", Device::kCpu, bind_position_of<Less, Minimum>)

}  // namespace mb::MB_ISA
