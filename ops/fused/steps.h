// The steps that a fused program may hold: each runs one operator's function over a tile.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <type_traits>

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

// A row of the table: the step of an operator for operands of one type (`in` is the last one's).
struct StepKind {
  std::string_view name;
  DType in, out;
  RunStep run;
};

constexpr DType kF = DType::kFloat32;
constexpr DType kB = DType::kBool;
constexpr StepKind kSteps[] = {
    {"abs", kF, kF, step_of_one<float, Abs>},
    {"clip", kF, kF, step_of_one<float, Clip<float>>},
    {"erf", kF, kF, step_of_one<float, Erf>},
    {"exp", kF, kF, step_of_one<float, Exp>},
    {"floor", kF, kF, step_of_one<float, Floor>},
    {"gelu", kF, kF, step_of_one<float, Gelu>},
    {"isfinite", kF, kB, step_of_one<float, IsFinite>},
    {"leaky_relu", kF, kF, step_of_one<float, LeakyRelu>},
    {"log", kF, kF, step_of_one<float, Log>},
    {"logical_not", kB, kB, step_of_one<bool, LogicalNot>},
    {"neg", kF, kF, step_of_one<float, Neg>},
    {"relu", kF, kF, step_of_one<float, Relu>},
    {"round", kF, kF, step_of_one<float, Round>},
    {"rsqrt", kF, kF, step_of_one<float, Rsqrt>},
    {"sigmoid", kF, kF, step_of_one<float, Sigmoid>},
    {"sign", kF, kF, step_of_one<float, Sign>},
    {"silu", kF, kF, step_of_one<float, Silu>},
    {"softplus", kF, kF, step_of_one<float, Softplus>},
    {"sqrt", kF, kF, step_of_one<float, Sqrt>},
    {"square", kF, kF, step_of_one<float, Square>},
    {"tanh", kF, kF, step_of_one<float, Tanh>},

    {"gelu_grad", kF, kF, step_of_two<float, GeluGrad>},
    {"leaky_relu_grad", kF, kF, step_of_two<float, LeakyReluGrad>},
    {"relu_grad", kF, kF, step_of_two<float, ReluGrad>},
    {"sigmoid_grad", kF, kF, step_of_two<float, SigmoidGrad>},
    {"silu_grad", kF, kF, step_of_two<float, SiluGrad>},
    {"tanh_grad", kF, kF, step_of_two<float, TanhGrad>},

    {"add", kF, kF, step_of_two<float, Add>},
    {"div", kF, kF, step_of_two<float, Div>},
    {"maximum", kF, kF, step_of_two<float, Maximum>},
    {"minimum", kF, kF, step_of_two<float, Minimum>},
    {"mul", kF, kF, step_of_two<float, Mul>},
    {"pow", kF, kF, step_of_two<float, Pow>},
    {"sub", kF, kF, step_of_two<float, Sub>},

    {"equal", kF, kB, step_of_two<float, Equal>},
    {"equal", kB, kB, step_of_two<bool, Equal>},
    {"greater", kF, kB, step_of_two<float, Greater>},
    {"greater_equal", kF, kB, step_of_two<float, GreaterEqual>},
    {"less", kF, kB, step_of_two<float, Less>},
    {"less_equal", kF, kB, step_of_two<float, LessEqual>},
    {"logical_and", kB, kB, step_of_two<bool, LogicalAnd>},
    {"logical_or", kB, kB, step_of_two<bool, LogicalOr>},
    {"not_equal", kF, kB, step_of_two<float, NotEqual>},
    {"not_equal", kB, kB, step_of_two<bool, NotEqual>},

    {"where", kF, kF, step_where<std::uint32_t>},
    {"where", kB, kB, step_where<std::uint8_t>},
};

inline const StepKind& find_step(std::string_view name, DType in) {
  for (const StepKind& kind : kSteps) {
    if (kind.name == name && kind.in == in) return kind;
  }
  fail("no step ", name, " for ", name_of(in));
}

}  // namespace mb::MB_ISA
