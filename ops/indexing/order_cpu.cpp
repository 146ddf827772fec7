// top_k: elements become unsigned keys (order, then index), which are all different.
#include <algorithm>
#include <bit>

#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

// Unsigned numbers in the order of the elements; equal elements (0 and -0, any NaNs) are equal.
std::uint32_t ordered(float x) {
  if (x != x) return 0xFFFFFFFFu;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x == 0.0f ? 0.0f : x);
  return bits ^ (bits >> 31 != 0 ? 0xFFFFFFFFu : 0x80000000u);
}
std::uint32_t ordered(std::int32_t x) { return std::uint32_t(x) ^ 0x80000000u; }

constexpr std::int64_t kWorkers = 16;  // rows in work at once: the split of the workspace

std::size_t workspace_top_k(const Call& call) {
  const Tensor& x = call.in(0);
  const std::int64_t n = x.dim(-1);
  if (x.count() == 0) return 0;
  require(n < (std::int64_t{1} << 32), "an axis of ", n, " elements is too long");
  return std::size_t(std::min(x.count() / n, kWorkers) * n) * sizeof(std::uint64_t);
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
  return [=](Stream&) {
    parallel_for(workers, std::max<std::int64_t>(1, 2048 / std::max<std::int64_t>(n, 1)),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t worker = begin; worker < end; ++worker) {
                     std::uint64_t* keys = workspace + worker * n;
                     for (std::int64_t row = rows * worker / workers;
                          row < rows * (worker + 1) / workers; ++row) {
                       const T* from = x + row * n;
                       for (std::int64_t i = 0; i < n; ++i) {
                         const std::uint32_t place = ordered(from[i]);
                         keys[i] = std::uint64_t(largest ? ~place : place) << 32 | std::uint64_t(i);
                       }
                       if (k < n) std::nth_element(keys, keys + k, keys + n);
                       std::sort(keys, keys + k);
                       for (std::int64_t i = 0; i < k; ++i) {
                         const std::int64_t at = std::int64_t(keys[i] & 0xFFFFFFFFu);
                         values[row * k + i] = from[at];
                         indices[row * k + i] = at;
                       }
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
