// Broadcasting, for elements of 1, 4 and 8 bytes.
#include "mb/elementwise.h"
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

template <typename T>
Launch bind_typed(const Call& call) {
  const Loop<2> loop = make_loop<2>({call.out(), call.in(0)});
  T* y = static_cast<T*>(call.out().pointer);
  const T* x = static_cast<const T*>(call.in(0).pointer);
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
      T* to = y + at[0];
      const T* from = x + at[1];
      if (loop.step[1] == 0) {
        std::fill(to, to + n, *from);
      } else {
        map_row(to, from, n, loop.step[1], [](T v) { return v; });
      }
    });
  };
}

Launch bind_broadcast(const Call& call) {
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

MB_KERNEL("broadcast_to", Device::kCpu, bind_broadcast)

}  // namespace mb::MB_ISA
