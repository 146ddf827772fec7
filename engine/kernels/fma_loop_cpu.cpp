// No operator: the arithmetic roof of this machine, by which profiles are judged.
//
// Every thread runs independent chains of fused multiply-adds in registers, enough of them to hide
// the latency of the units. out(0) float64[threads]: operations that each thread made, an addition
// and a multiplication counted as two. out(1) float32[threads]: sums, so that nothing is left out.
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr int kLanes = kBytes / int(sizeof(float));
constexpr int kChains = 12;  // with two constants they fit into sixteen registers

using Vector [[gnu::vector_size(kBytes)]] = float;

float chains(std::int64_t rounds) {
  Vector sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = Vector{} + float(c);
  const Vector factor = Vector{} + 0.999F, term = Vector{} + 0.001F;
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = sums[c] * factor + term;
  }
  Vector total{};
  for (const Vector& sum : sums) total += sum;
  float result = 0;
  for (int lane = 0; lane < kLanes; ++lane) result += total[lane];
  return result;
}

Launch bind_fma_loop(const Call& call) {
  const std::int64_t rounds = call.attrs.integer("rounds");
  const std::int64_t threads = call.out().count();
  double* operations = call.out(0).data<double>();
  float* sums = call.out(1).data<float>();
  return [=](Stream&) {
    parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        sums[t] = chains(rounds);
        operations[t] = 2.0 * kChains * kLanes * double(rounds);
      }
    });
  };
}

}  // namespace

MB_KERNEL("fma_loop", Device::kCpu, bind_fma_loop)

}  // namespace mb::MB_ISA
