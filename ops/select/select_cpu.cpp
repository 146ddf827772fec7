// where(condition, a, b), for elements of 1, 4 and 8 bytes.
#include "mb/elementwise.h"
#include "mb/kernel.h"
#include "ops/select/where_row.h"

namespace mb::MB_ISA {
namespace {

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
