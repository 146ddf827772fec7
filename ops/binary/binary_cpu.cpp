// Elementwise functions of two broadcast operands.
#include "mb/elementwise.h"
#include "mb/kernel.h"
#include "ops/binary/functors.h"

namespace mb::MB_ISA {
namespace {

constexpr Device kDevice = Device::kCpu;

template <typename In, typename F>
Launch bind_typed(const Call& call) {
  using Out = decltype(F{}(In{}, In{}));
  const Loop<3> loop = make_loop<3>({call.out(), call.in(0), call.in(1)});
  Out* y = call.out().data<Out>();
  const In* a = call.in(0).data<In>();
  const In* b = call.in(1).data<In>();
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 3>& at, std::int64_t n) {
      map_row(y + at[0], a + at[1], b + at[2], n, loop.step[1], loop.step[2], F{});
    });
  };
}

}  // namespace

#include "ops/binary/table.h"

}  // namespace mb::MB_ISA
