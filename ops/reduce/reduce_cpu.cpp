// Sums, means and products over axes.
#include <limits>
#include <type_traits>

#include "mb/wrapping.h"
#include "ops/reduce/reduction.h"

namespace mb::MB_ISA {
namespace {

template <typename T>
using TotalOf = std::conditional_t<std::is_same_v<T, float>, double, T>;

template <typename T>
struct Sum {
  using Element = T;
  using Block = T;
  using Total = TotalOf<T>;
  static Block start() { return 0; }
  static Block step(Block a, T x) { return Block(Wrapping<Block>(a) + Wrapping<Block>(x)); }
  static Block merge(Block a, Block b) { return step(a, b); }
  static Total join(Total a, Total b) { return Total(Wrapping<Total>(a) + Wrapping<Total>(b)); }
  static T finish(Total total, std::int64_t) { return T(total); }
};

struct Mean : Sum<float> {
  static float finish(double total, std::int64_t count) {
    return count == 0 ? std::numeric_limits<float>::quiet_NaN() : float(total / double(count));
  }
};

template <typename T>
struct Product {
  using Element = T;
  using Block = TotalOf<T>;  // a product leaves float's range long before its precision
  using Total = TotalOf<T>;
  static Block start() { return 1; }
  static Block step(Block a, T x) { return join(a, Block(x)); }
  static Block merge(Block a, Block b) { return join(a, b); }
  static Total join(Total a, Total b) { return Total(Wrapping<Total>(a) * Wrapping<Total>(b)); }
  static T finish(Total total, std::int64_t) { return T(total); }
};

}  // namespace

MB_KERNEL("sum", Device::kCpu, bind_reduction_of<Sum>, workspace_of<Sum>)
MB_KERNEL("mean", Device::kCpu, bind_reduction<Mean>, reduction_workspace<Mean>)
MB_KERNEL("prod", Device::kCpu, bind_reduction_of<Product>, workspace_of<Product>)

}  // namespace mb::MB_ISA
