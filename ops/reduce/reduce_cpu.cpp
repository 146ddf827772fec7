// Sums over axes, and broadcasting.
#include <cstring>

#include "mb/elementwise.h"
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

Launch bind_broadcast(const Call& call) {
  const Loop<2> loop = make_loop<2>({call.out(), call.in(0)});
  const std::size_t size = size_of(call.out().dtype);
  require(size == 4, "no kernel for ", name_of(call.out().dtype));
  auto* y = static_cast<std::uint32_t*>(call.out().pointer);
  const auto* x = static_cast<const std::uint32_t*>(call.in(0).pointer);
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
      std::uint32_t* to = y + at[0];
      const std::uint32_t* from = x + at[1];
      if (loop.step[1] == 0) {
        std::fill(to, to + n, *from);
      } else {
        for (std::int64_t i = 0; i < n; ++i) to[i] = from[i * loop.step[1]];
      }
    });
  };
}

Launch bind_sum(const Call& call) {
  // Walk the input once, adding into the (broadcast) output.
  const Loop<2> loop = make_loop<2>({call.in(0), call.out()});
  const float* x = call.in(0).data<float>();
  float* y = call.out().data<float>();
  const std::size_t bytes = call.out().bytes();
  return [=](Stream&) {
    std::memset(y, 0, bytes);
    for (std::int64_t r = 0; r < loop.rows; ++r) {
      const auto at = loop.row(r);
      if (loop.step[1] == 0) {
        double total = 0;
        for (std::int64_t i = 0; i < loop.length; ++i) total += x[at[0] + i];
        y[at[1]] += float(total);
      } else {
        for (std::int64_t i = 0; i < loop.length; ++i) {
          y[at[1] + i * loop.step[1]] += x[at[0] + i];
        }
      }
    }
  };
}

}  // namespace

MB_KERNEL("broadcast_to", Device::kCpu, bind_broadcast)
MB_KERNEL("sum", Device::kCpu, bind_sum)

}  // namespace mb::MB_ISA
