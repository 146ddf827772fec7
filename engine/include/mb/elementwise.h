// The loop under every elementwise kernel: broadcasting, layouts, threads; the kernel gives a row.
#pragma once

#include <array>

#include "mb/parallel.h"
#include "mb/tensor.h"

namespace mb::MB_ISA {

// N operands, the output first, walked together. Axes are in the output's memory order, with
// neighbours merged where every operand allows it; a broadcast operand has stride 0.
template <int N>
struct Loop {
  std::int64_t rows = 1;    // product of all sizes but the last
  std::int64_t length = 1;  // the innermost axis
  int rank = 0;             // outer axes
  Dims sizes{};
  std::array<Dims, N> strides{};                               // of the outer axes, in elements
  std::array<std::int64_t, N> step{};                          // of the innermost axis
  std::array<std::int64_t, N> row(std::int64_t index) const {  // element offsets of a row
    std::array<std::int64_t, N> offsets{};
    for (int axis = rank - 1; axis >= 0; --axis) {
      const std::int64_t at = index % sizes[axis];
      index /= sizes[axis];
      for (int k = 0; k < N; ++k) offsets[k] += at * strides[k][axis];
    }
    return offsets;
  }
};

// A loop over axes of these sizes; strides of each operand along each axis, in elements. The last
// axis should be the one that is contiguous in the output.
template <int N>
Loop<N> loop_over(int axes, const Dims& lengths, const std::array<Dims, N>& full) {
  Dims sizes{};
  std::array<Dims, N> strides{};
  int rank = 0;
  Loop<N> loop;
  for (int axis = 0; axis < axes; ++axis) {
    const std::int64_t size = lengths[axis];
    if (size == 0) {
      loop.rows = 0;
      return loop;
    }
    if (size == 1) continue;
    bool merge = rank > 0;
    for (int k = 0; k < N && merge; ++k) merge = strides[k][rank - 1] == full[k][axis] * size;
    if (merge) {
      sizes[rank - 1] *= size;
    } else {
      sizes[rank++] = size;
    }
    for (int k = 0; k < N; ++k) strides[k][rank - 1] = full[k][axis];
  }
  if (rank == 0) return loop;  // a single element
  loop.rank = rank - 1;
  loop.length = sizes[rank - 1];
  for (int axis = 0; axis < loop.rank; ++axis) {
    loop.sizes[axis] = sizes[axis];
    loop.rows *= sizes[axis];
  }
  for (int k = 0; k < N; ++k) {
    loop.strides[k] = strides[k];
    loop.step[k] = strides[k][rank - 1];
  }
  return loop;
}

// The logical axes of a tensor from the outermost in memory to the innermost.
inline std::array<int, kMaxRank> memory_order(const Tensor& t) {
  if (t.layout == Layout::kChannelsLast && t.rank == 4) return {0, 2, 3, 1, 4, 5, 6, 7};
  return {0, 1, 2, 3, 4, 5, 6, 7};
}

template <int N>
Loop<N> make_loop(const std::array<Tensor, N>& operands) {
  const Tensor& out = operands[0];
  const auto order = memory_order(out);
  Dims sizes{};
  std::array<Dims, N> strides{};
  for (int i = 0; i < out.rank; ++i) sizes[i] = out.dims[order[i]];
  for (int k = 0; k < N; ++k) {
    const Tensor& t = operands[k];
    const Dims own = t.strides();
    const int lead = out.rank - t.rank;
    for (int i = 0; i < out.rank; ++i) {
      const int axis = order[i] - lead;
      strides[k][i] = axis < 0 || t.dims[axis] == 1 ? 0 : own[axis];
    }
  }
  return loop_over<N>(out.rank, sizes, strides);
}

// Calls body(offsets, length) for pieces of rows; pieces of one row when there are few rows.
template <int N, typename Body>
void run_loop(const Loop<N>& loop, const Body& body) {
  constexpr std::int64_t kGrain = 16384;  // elements a thread must have to be worth waking
  if (loop.rows == 1) {
    parallel_for(loop.length, kGrain, [&](std::int64_t begin, std::int64_t end) {
      std::array<std::int64_t, N> offsets{};
      for (int k = 0; k < N; ++k) offsets[k] = begin * loop.step[k];
      body(offsets, end - begin);
    });
    return;
  }
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / loop.length);
  parallel_for(loop.rows, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) body(loop.row(row), loop.length);
  });
}

// One row y[i] = f(a[i]). Flattened: a call left in the loop would keep it from vectorising.
template <typename Out, typename In, typename F>
[[gnu::flatten]] void map_row(Out* y, const In* a, std::int64_t n, std::int64_t step, const F& f) {
  if (step == 1) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] = f(a[i]);
  } else {
    for (std::int64_t i = 0; i < n; ++i) y[i] = f(a[i * step]);
  }
}

// One row y[i] = f(a[i], b[i]); contiguous and constant operands vectorise.
template <typename Out, typename A, typename B, typename F>
[[gnu::flatten]] void map_row(Out* y, const A* a, const B* b, std::int64_t n, std::int64_t step_a,
                              std::int64_t step_b, const F& f) {
  if (step_a == 1 && step_b == 1) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] = f(a[i], b[i]);
  } else if (step_a == 1 && step_b == 0) {
    const B scalar = *b;
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] = f(a[i], scalar);
  } else if (step_a == 0 && step_b == 1) {
    const A scalar = *a;
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] = f(scalar, b[i]);
  } else {
    for (std::int64_t i = 0; i < n; ++i) y[i] = f(a[i * step_a], b[i * step_b]);
  }
}

}  // namespace mb::MB_ISA
