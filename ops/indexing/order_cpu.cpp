// top_k: elements become unsigned keys (order, then index), which are all different.
//
// A count of the keys' upper bits says where the k-th key lies: what is beyond is never sorted.
#include <algorithm>

#include "mb/kernel.h"
#include "mb/sort_keys.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kWorkers = 16;  // rows in work at once: the split of the workspace
constexpr int kUpper = 12;             // bits that are counted
constexpr std::int64_t kChunk = 512;   // elements whose places are computed together

std::size_t workspace_top_k(const Call& call) {
  const Tensor& x = call.in(0);
  const std::int64_t n = x.dim(-1);
  if (x.count() == 0) return 0;
  require(n < (std::int64_t{1} << 32), "an axis of ", n, " elements is too long");
  return std::size_t(std::min(x.count() / n, kWorkers) * n) * 2 * sizeof(std::uint64_t);
}

// Calls body(places, first, count) for stretches of a row; small places come first.
template <typename T, typename Body>
void each_chunk(const T* x, std::int64_t n, bool largest, const Body& body) {
  const std::uint32_t flip = largest ? 0xFFFFFFFFu : 0;
  std::uint32_t places[kChunk];
  for (std::int64_t first = 0; first < n; first += kChunk) {
    const std::int64_t count = std::min(kChunk, n - first);
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) places[i] = ordered(x[first + i]) ^ flip;
    body(places, first, count);
  }
}

// The largest upper bits that one of the k smallest places has.
template <typename T>
std::uint32_t limit_of(const T* x, std::int64_t n, std::int64_t k, bool largest) {
  std::array<std::uint32_t, 1 << kUpper> counts{};
  each_chunk(x, n, largest, [&](const std::uint32_t* places, std::int64_t, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) ++counts[places[i] >> (32 - kUpper)];
  });
  std::uint32_t upper = 0;
  for (std::int64_t seen = counts[0]; seen < k; seen += counts[upper]) ++upper;
  return upper;
}

// The k smallest keys of a row in order, in `keys` or `other`, which have room for n.
template <typename T>
const std::uint64_t* smallest(const T* x, std::int64_t n, std::int64_t k, bool largest,
                              std::uint64_t* keys, std::uint64_t* other) {
  const bool all = 2 * k > n;
  const std::uint32_t limit = all ? 0xFFFFFFFFu : limit_of(x, n, k, largest);
  std::int64_t taken = 0;
  each_chunk(x, n, largest,
             [&](const std::uint32_t* places, std::int64_t first, std::int64_t count) {
               for (std::int64_t i = 0; i < count; ++i) {
                 keys[taken] = sort_key(places[i], first + i);
                 taken += places[i] >> (32 - kUpper) <= limit;
               }
             });
  return sort_keys(keys, other, taken);
}

template <typename T>
Launch bind_typed(const Call& call) {
  const std::int64_t n = call.in(0).dim(-1), k = call.out().dim(-1);
  const std::int64_t rows = n == 0 ? 0 : call.in(0).count() / n;
  const bool largest = call.attrs.flag("largest");
  const T* x = call.in(0).data<T>();
  T* values = call.out(0).data<T>();
  std::int64_t* indices = call.out(1).data<std::int64_t>();
  auto* workspace = static_cast<std::uint64_t*>(call.workspace.pointer);
  const std::int64_t workers = std::min(rows, kWorkers);
  const auto row = [=](std::int64_t r, std::uint64_t* memory) {
    const T* from = x + r * n;
    const std::uint64_t* found = smallest(from, n, k, largest, memory, memory + n);
    for (std::int64_t i = 0; i < k; ++i) {
      const std::int64_t at = index_of(found[i]);
      values[r * k + i] = from[at];
      indices[r * k + i] = at;
    }
  };
  const std::int64_t grain = std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(n, 1));
  return [=](Stream&) {
    parallel_for(workers, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t worker = begin; worker < end; ++worker) {
        for (std::int64_t r = rows * worker / workers; r < rows * (worker + 1) / workers; ++r) {
          row(r, workspace + worker * 2 * n);
        }
      }
    });
  };
}

Launch bind_top_k(const Call& call) {
  return call.in(0).dtype == DType::kInt32 ? bind_typed<std::int32_t>(call)
                                           : bind_typed<float>(call);
}

}  // namespace

MB_KERNEL("top_k", Device::kCpu, bind_top_k, workspace_top_k)

}  // namespace mb::MB_ISA
