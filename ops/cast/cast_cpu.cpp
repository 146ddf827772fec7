// Conversions between element types.
#include <limits>

#include "mb/elementwise.h"
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

template <typename To, typename From>
To convert(From x) {
  if constexpr (std::is_same_v<To, bool>) {
    return x != From(0);
  } else if constexpr (std::is_same_v<From, float> && std::is_integral_v<To>) {
    // Outside of the range the plain conversion is undefined. The upper bound is exact: 2^bits.
    constexpr float kLow = float(std::numeric_limits<To>::min());
    constexpr float kHigh = 2.0f * float(std::numeric_limits<To>::max() / 2 + 1);
    const bool inside = x >= kLow && x < kHigh;
    const To edge = x < 0.0f ? std::numeric_limits<To>::min()
                             : (x == x ? std::numeric_limits<To>::max() : To(0));
    const To whole = To(inside ? x : 0.0f);
    return inside ? whole : edge;
  } else {
    return To(x);
  }
}

template <typename To, typename From>
Launch bind_pair(const Call& call) {
  const Loop<2> loop = make_loop<2>({call.out(), call.in(0)});
  To* y = call.out().data<To>();
  const From* x = call.in(0).data<From>();
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
      map_row(y + at[0], x + at[1], n, loop.step[1], [](From v) { return convert<To>(v); });
    });
  };
}

template <typename To>
Launch bind_to(const Call& call) {
  switch (call.in(0).dtype) {
    case DType::kFloat32:
      return bind_pair<To, float>(call);
    case DType::kInt32:
      return bind_pair<To, std::int32_t>(call);
    case DType::kInt64:
      return bind_pair<To, std::int64_t>(call);
    case DType::kUint8:
      return bind_pair<To, std::uint8_t>(call);
    case DType::kBool:
      return bind_pair<To, bool>(call);
    default:
      fail("no kernel for ", name_of(call.in(0).dtype));
  }
}

Launch bind_cast(const Call& call) {
  switch (call.out().dtype) {
    case DType::kFloat32:
      return bind_to<float>(call);
    case DType::kInt32:
      return bind_to<std::int32_t>(call);
    case DType::kInt64:
      return bind_to<std::int64_t>(call);
    case DType::kUint8:
      return bind_to<std::uint8_t>(call);
    case DType::kBool:
      return bind_to<bool>(call);
    default:
      fail("no kernel for ", name_of(call.out().dtype));
  }
}

}  // namespace

MB_KERNEL("cast", Device::kCpu, bind_cast)

}  // namespace mb::MB_ISA
