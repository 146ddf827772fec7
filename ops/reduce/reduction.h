// The skeleton under every reduction: any axes, either layout, threads; the kernel gives a Rule.
//
// A Rule names Element (what is stored), Block (what a few hundred elements are gathered in) and
// Total (what blocks are gathered in: double for float sums, so that long sums stay exact), with
//   static Block start();                      the neutral element
//   static Block step(Block, Element);         one more element
//   static Block merge(Block, Block);          two blocks
//   static Total join(Total, Total);           two partial results
//   static Element finish(Total, int64 count)  the result over `count` elements
// The split into partial results depends on shapes only: results do not depend on the threads.
#pragma once

#include "mb/elementwise.h"
#include "mb/kernel.h"

namespace mb::MB_ISA {

// The input's axes in memory order, split into kept and reduced ones; the innermost stands apart.
struct Reduction {
  int kept_rank = 0, reduced_rank = 0;
  Dims kept_sizes{}, kept_in{}, kept_out{}, reduced_sizes{}, reduced_in{};
  std::int64_t kept = 1, reduced = 1;  // products of the outer sizes
  std::int64_t length = 1;             // of the innermost axis
  std::int64_t out_step = 0;           // of the innermost axis in the output
  bool inner_reduced = false;
  std::int64_t width = 1;                  // results of one outer kept index
  std::int64_t segment = 1, segments = 1;  // pieces of a row: of its sum, or of its columns
  std::int64_t parts = 1;                  // partial results of each output element
};

inline constexpr std::int64_t kSegment = 2048;  // elements of a row summed at once
inline constexpr std::int64_t kColumns = 512;   // columns gathered at once

inline Reduction make_reduction(const Tensor& in, const Tensor& out) {
  const Loop<2> loop = make_loop<2>({in, out});
  Reduction r;
  r.length = loop.length;
  r.inner_reduced = loop.length > 1 && loop.step[1] == 0;
  r.out_step = loop.step[1];
  for (int axis = 0; axis < loop.rank; ++axis) {
    if (loop.strides[1][axis] == 0) {
      r.reduced_sizes[r.reduced_rank] = loop.sizes[axis];
      r.reduced_in[r.reduced_rank++] = loop.strides[0][axis];
      r.reduced *= loop.sizes[axis];
    } else {
      r.kept_sizes[r.kept_rank] = loop.sizes[axis];
      r.kept_in[r.kept_rank] = loop.strides[0][axis];
      r.kept_out[r.kept_rank++] = loop.strides[1][axis];
      r.kept *= loop.sizes[axis];
    }
  }
  r.width = r.inner_reduced ? 1 : r.length;
  r.segment = std::min(r.length, r.inner_reduced ? kSegment : kColumns);
  r.segments = (r.length + r.segment - 1) / r.segment;
  const std::int64_t independent = r.kept * (r.inner_reduced ? 1 : r.segments);
  const std::int64_t units = r.reduced * (r.inner_reduced ? r.segments : 1);
  const std::int64_t useful = std::min(units, r.reduced * r.length / 32768);
  r.parts = std::clamp<std::int64_t>(std::min(useful, 32 / independent), 1, 32);
  return r;
}

template <typename Rule>
std::size_t reduction_workspace(const Call& call) {
  if (call.in(0).count() == 0) return 0;
  const Reduction r = make_reduction(call.in(0), call.out());
  return r.parts == 1 ? 0 : std::size_t(r.kept * r.parts * r.width) * sizeof(typename Rule::Total);
}

// Offset of a flat index over axes with these sizes and strides.
inline std::int64_t offset_of(std::int64_t index, int rank, const Dims& sizes,
                              const Dims& strides) {
  if (rank == 1) return index * strides[0];
  std::int64_t offset = 0;
  for (int axis = rank - 1; axis >= 0; --axis) {
    offset += index % sizes[axis] * strides[axis];
    index /= sizes[axis];
  }
  return offset;
}

// A contiguous stretch: 16 lanes, so that a chain of additions is short and vectorises.
template <typename Rule>
[[gnu::flatten]] typename Rule::Total reduce_stretch(const typename Rule::Element* x,
                                                     std::int64_t n) {
  using Total = typename Rule::Total;
  constexpr int kLanes = 16;
  Total total = Rule::start();
  std::int64_t i = 0;
  if (n >= kLanes) {
    typename Rule::Block lanes[kLanes];
    for (int j = 0; j < kLanes; ++j) lanes[j] = Rule::start();
    for (; i + kLanes <= n; i += kLanes) {
#pragma omp simd
      for (int j = 0; j < kLanes; ++j) lanes[j] = Rule::step(lanes[j], x[i + j]);
    }
#pragma GCC unroll 4
    for (int half = kLanes / 2; half > 0; half /= 2) {
      for (int j = 0; j < half; ++j) lanes[j] = Rule::merge(lanes[j], lanes[j + half]);
    }
    total = Rule::join(total, Total(lanes[0]));
  }
  for (; i < n; ++i) total = Rule::join(total, Total(Rule::step(Rule::start(), x[i])));
  return total;
}

// Columns [0, n) of rows [first, last) into totals: 32 rows at a time, then their block.
template <typename Rule>
[[gnu::flatten]] void reduce_columns(const Reduction& r, const typename Rule::Element* x,
                                     std::int64_t first, std::int64_t last, std::int64_t n,
                                     typename Rule::Total* totals) {
  using Total = typename Rule::Total;
  typename Rule::Block block[kColumns];
  for (std::int64_t j = 0; j < n; ++j) totals[j] = Rule::start();
  for (std::int64_t row = first; row < last; row += 32) {
    const std::int64_t end = std::min(last, row + 32);
    for (std::int64_t j = 0; j < n; ++j) block[j] = Rule::start();
    for (std::int64_t k = row; k < end; ++k) {
      const auto* from = x + offset_of(k, r.reduced_rank, r.reduced_sizes, r.reduced_in);
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) block[j] = Rule::step(block[j], from[j]);
    }
    for (std::int64_t j = 0; j < n; ++j) totals[j] = Rule::join(totals[j], Total(block[j]));
  }
}

// The partial result `part` of the outer kept index `k`; of one column segment when columns stay.
template <typename Rule, typename Write>
void reduce_part(const Reduction& r, const typename Rule::Element* x, std::int64_t k,
                 std::int64_t part, std::int64_t segment, const Write& write) {
  using Total = typename Rule::Total;
  x += offset_of(k, r.kept_rank, r.kept_sizes, r.kept_in);
  if (r.inner_reduced) {
    const std::int64_t units = r.reduced * r.segments;
    Total total = Rule::start();
    for (std::int64_t u = units * part / r.parts; u < units * (part + 1) / r.parts; ++u) {
      const std::int64_t start = u % r.segments * r.segment;
      const auto* row =
          x + offset_of(u / r.segments, r.reduced_rank, r.reduced_sizes, r.reduced_in);
      const std::int64_t n = std::min(r.segment, r.length - start);
      total = Rule::join(total, reduce_stretch<Rule>(row + start, n));
    }
    write(0, total);
    return;
  }
  Total totals[kColumns];
  const std::int64_t start = segment * r.segment;
  const std::int64_t n = std::min(r.segment, r.length - start);
  reduce_columns<Rule>(r, x + start, r.reduced * part / r.parts, r.reduced * (part + 1) / r.parts,
                       n, totals);
  for (std::int64_t j = 0; j < n; ++j) write(start + j, totals[j]);
}

template <typename Rule>
Launch bind_reduction(const Call& call) {
  using Element = typename Rule::Element;
  using Total = typename Rule::Total;
  const Element* x = call.in(0).data<Element>();
  Element* y = call.out().data<Element>();
  const std::int64_t results = call.out().count();
  if (call.in(0).count() == 0) {
    return [=](Stream&) { std::fill(y, y + results, Rule::finish(Rule::start(), 0)); };
  }
  const Reduction r = make_reduction(call.in(0), call.out());
  const std::int64_t count = call.in(0).count() / results;
  Total* partial = static_cast<Total*>(call.workspace.pointer);
  // One row for each result, the most frequent form, has a shorter way.
  const bool one_row = r.inner_reduced && r.reduced * r.segments == 1;
  const std::int64_t columns = r.inner_reduced ? 1 : r.segments;
  const std::int64_t tasks = r.kept * r.parts * columns;
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / (call.in(0).count() / tasks + 1));
  return [=](Stream&) {
    parallel_for(tasks, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t task = begin; task < end; ++task) {
        if (one_row) {
          const auto* row = x + offset_of(task, r.kept_rank, r.kept_sizes, r.kept_in);
          y[offset_of(task, r.kept_rank, r.kept_sizes, r.kept_out)] =
              Rule::finish(reduce_stretch<Rule>(row, r.length), count);
          continue;
        }
        const std::int64_t k = task / (r.parts * columns);
        const std::int64_t part = task / columns % r.parts;
        if (r.parts == 1) {
          Element* to = y + offset_of(k, r.kept_rank, r.kept_sizes, r.kept_out);
          reduce_part<Rule>(r, x, k, part, task % columns, [&](std::int64_t j, Total total) {
            to[j * r.out_step] = Rule::finish(total, count);
          });
        } else {
          Total* to = partial + (k * r.parts + part) * r.width;
          reduce_part<Rule>(r, x, k, part, task % columns,
                            [&](std::int64_t j, Total total) { to[j] = total; });
        }
      }
    });
    if (r.parts == 1) return;
    for (std::int64_t k = 0; k < r.kept; ++k) {
      Element* to = y + offset_of(k, r.kept_rank, r.kept_sizes, r.kept_out);
      const Total* from = partial + k * r.parts * r.width;
      for (std::int64_t j = 0; j < r.width; ++j) {
        Total total = from[j];
        for (std::int64_t p = 1; p < r.parts; ++p) total = Rule::join(total, from[p * r.width + j]);
        to[j * r.out_step] = Rule::finish(total, count);
      }
    }
  };
}

// A kernel for each element type of Rule<T>.
template <template <typename> class Rule>
Launch bind_reduction_of(const Call& call) {
  switch (call.in(0).dtype) {
    case DType::kFloat32:
      return bind_reduction<Rule<float>>(call);
    case DType::kInt32:
      return bind_reduction<Rule<std::int32_t>>(call);
    case DType::kInt64:
      return bind_reduction<Rule<std::int64_t>>(call);
    default:
      fail("no kernel for ", name_of(call.in(0).dtype));
  }
}

template <template <typename> class Rule>
std::size_t workspace_of(const Call& call) {
  switch (call.in(0).dtype) {
    case DType::kFloat32:
      return reduction_workspace<Rule<float>>(call);
    case DType::kInt32:
      return reduction_workspace<Rule<std::int32_t>>(call);
    case DType::kInt64:
      return reduction_workspace<Rule<std::int64_t>>(call);
    default:
      fail("no kernel for ", name_of(call.in(0).dtype));
  }
}

}  // namespace mb::MB_ISA
