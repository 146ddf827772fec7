// where(condition, a, b), for elements of 1, 4 and 8 bytes.
#include "mb/elementwise.h"
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

// A constant operand is handed in as a lambda, so that every combination is one loop.
template <typename T, typename A, typename B>
void choose(T* y, const bool* condition, std::int64_t n, const A& a, const B& b) {
  const auto* chosen = reinterpret_cast<const std::uint8_t*>(condition);  // bools do not vectorise
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const T first = a(i), second = b(i);
    y[i] = chosen[i] != 0 ? first : second;
  }
}

template <typename T>
void where_row(T* y, const bool* condition, const T* a, const T* b, std::int64_t n,
               const std::array<std::int64_t, 4>& step) {
  const T a0 = *a, b0 = *b;
  const auto constant_a = [=](std::int64_t) { return a0; };
  const auto constant_b = [=](std::int64_t) { return b0; };
  const auto row_a = [=](std::int64_t i) { return a[i]; };
  const auto row_b = [=](std::int64_t i) { return b[i]; };
  if (step[1] == 0) {  // the whole row comes from one side
    const T* from = *condition ? a : b;
    const std::int64_t by = *condition ? step[2] : step[3];
    map_row(y, from, n, by, [](T x) { return x; });
  } else if (step[1] == 1 && step[2] == 1 && step[3] == 1) {
    choose(y, condition, n, row_a, row_b);
  } else if (step[1] == 1 && step[2] == 1 && step[3] == 0) {
    choose(y, condition, n, row_a, constant_b);
  } else if (step[1] == 1 && step[2] == 0 && step[3] == 1) {
    choose(y, condition, n, constant_a, row_b);
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      y[i] = condition[i * step[1]] ? a[i * step[2]] : b[i * step[3]];
    }
  }
}

template <typename T>
Launch bind_typed(const Call& call) {
  const Loop<4> loop = make_loop<4>({call.out(), call.in(0), call.in(1), call.in(2)});
  T* y = static_cast<T*>(call.out().pointer);
  const bool* condition = call.in(0).data<bool>();
  const T* a = static_cast<const T*>(call.in(1).pointer);
  const T* b = static_cast<const T*>(call.in(2).pointer);
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 4>& at, std::int64_t n) {
      where_row(y + at[0], condition + at[1], a + at[2], b + at[3], n, loop.step);
    });
  };
}

Launch bind_where(const Call& call) {
  switch (size_of(call.out().dtype)) {
    case 1:
      return bind_typed<std::uint8_t>(call);
    case 4:
      return bind_typed<std::uint32_t>(call);
    default:
      return bind_typed<std::uint64_t>(call);
  }
}

}  // namespace

MB_KERNEL("where", Device::kCpu, bind_where)

}  // namespace mb::MB_ISA
