// The steps that a fused program may hold: each runs one operator's function over a tile.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include "mb/elementwise.h"
#include "mb/kernel.h"
#include "ops/binary/functors.h"
#include "ops/select/where_row.h"
#include "ops/unary/functors.h"

namespace mb::MB_ISA {

constexpr int kReads = 3;   // operands of a step
constexpr int kValues = 2;  // numbers of a step, such as a slope

struct Operand {
  const void* data = nullptr;
  std::int64_t step = 1;  // 0: one element for the whole tile
};
using Operands = std::array<Operand, kReads>;
using Values = std::array<float, kValues>;
using RunStep = void (*)(void* y, const Operands& in, std::int64_t n, const Values& values);

template <typename F>
F functor(const Values& values) {
  if constexpr (std::is_empty_v<F>) {
    return F{};
  } else if constexpr (sizeof(F) == sizeof(float)) {
    return F{values[0]};
  } else {
    return F{values[0], values[1]};
  }
}

template <typename T>
const T* data_of(const Operand& operand) {
  return static_cast<const T*>(operand.data);
}

template <typename In, typename F>
void step_of_one(void* y, const Operands& in, std::int64_t n, const Values& values) {
  const F f = functor<F>(values);
  using Out = decltype(f(In{}));
  map_row(static_cast<Out*>(y), data_of<In>(in[0]), n, in[0].step, f);
}

template <typename In, typename F>
void step_of_two(void* y, const Operands& in, std::int64_t n, const Values& values) {
  const F f = functor<F>(values);
  using Out = decltype(f(In{}, In{}));
  map_row(static_cast<Out*>(y), data_of<In>(in[0]), data_of<In>(in[1]), n, in[0].step, in[1].step,
          f);
}

template <typename T>
void step_where(void* y, const Operands& in, std::int64_t n, const Values&) {
  where_row(static_cast<T*>(y), data_of<bool>(in[0]), data_of<T>(in[1]), data_of<T>(in[2]), n,
            {1, in[0].step, in[1].step, in[2].step});
}

// A row of the table: the step of an operator for operands of one type.
struct StepKind {
  std::string_view name;
  int reads;
  DType in, out;  // `in`: of the last operand and, but for a choice, of the others
  RunStep run;
};

template <typename In, typename F>
constexpr StepKind one(std::string_view name) {
  using Out = decltype(std::declval<F>()(In{}));
  return {name, 1, DTypeOf<In>::value, DTypeOf<Out>::value, step_of_one<In, F>};
}

template <typename In, typename F>
constexpr StepKind two(std::string_view name) {
  using Out = decltype(std::declval<F>()(In{}, In{}));
  return {name, 2, DTypeOf<In>::value, DTypeOf<Out>::value, step_of_two<In, F>};
}

template <typename T, typename Moved>  // a choice only moves its operands' bits
constexpr StepKind choice(std::string_view name) {
  static_assert(sizeof(T) == sizeof(Moved));
  return {name, 3, DTypeOf<T>::value, DTypeOf<T>::value, step_where<Moved>};
}

constexpr StepKind kSteps[] = {
    one<float, Abs>("abs"),
    one<float, Clip<float>>("clip"),
    one<float, Erf>("erf"),
    one<float, Exp>("exp"),
    one<float, Floor>("floor"),
    one<float, Gelu>("gelu"),
    one<float, IsFinite>("isfinite"),
    one<float, LeakyRelu>("leaky_relu"),
    one<float, Log>("log"),
    one<bool, LogicalNot>("logical_not"),
    one<float, Neg>("neg"),
    one<float, Relu>("relu"),
    one<float, Round>("round"),
    one<float, Rsqrt>("rsqrt"),
    one<float, Sigmoid>("sigmoid"),
    one<float, Sign>("sign"),
    one<float, Silu>("silu"),
    one<float, Softplus>("softplus"),
    one<float, Sqrt>("sqrt"),
    one<float, Square>("square"),
    one<float, Tanh>("tanh"),

    two<float, GeluGrad>("gelu_grad"),
    two<float, LeakyReluGrad>("leaky_relu_grad"),
    two<float, ReluGrad>("relu_grad"),
    two<float, SigmoidGrad>("sigmoid_grad"),
    two<float, SiluGrad>("silu_grad"),
    two<float, TanhGrad>("tanh_grad"),

    two<float, Add>("add"),
    two<float, Div>("div"),
    two<float, Maximum>("maximum"),
    two<float, Minimum>("minimum"),
    two<float, Mul>("mul"),
    two<float, Pow>("pow"),
    two<float, Sub>("sub"),

    two<float, Equal>("equal"),
    two<bool, Equal>("equal"),
    two<float, Greater>("greater"),
    two<float, GreaterEqual>("greater_equal"),
    two<float, Less>("less"),
    two<float, LessEqual>("less_equal"),
    two<bool, LogicalAnd>("logical_and"),
    two<bool, LogicalOr>("logical_or"),
    two<float, NotEqual>("not_equal"),
    two<bool, NotEqual>("not_equal"),

    choice<float, std::uint32_t>("where"),
    choice<bool, std::uint8_t>("where"),
};

// The step `name` for operands of these types.
inline const StepKind& find_step(std::string_view name, std::span<const DType> in) {
  for (const StepKind& kind : kSteps) {
    if (kind.name != name || std::size_t(kind.reads) != in.size()) continue;
    bool fits = true;
    for (std::size_t r = 0; r < in.size(); ++r) {
      const bool condition = kind.reads == 3 && r == 0;
      fits = fits && in[r] == (condition ? DType::kBool : kind.in);
    }
    if (fits) return kind;
  }
  fail("no step ", name, " for ", in.size(), " operands of these types");
}

}  // namespace mb::MB_ISA
