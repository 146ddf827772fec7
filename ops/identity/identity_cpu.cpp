// print_value: hands its input on and prints a summary.
#include <algorithm>
#include <cstdio>
#include <string>

#include "mb/kernel.h"
#include "mb/relayout.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kShown = 8;  // first elements, in row order

template <typename T>
void print(const Tensor& x, const std::string& head) {
  const T* values = x.data<T>();
  const std::int64_t n = x.count();
  if (n == 0) {
    std::printf("%s: no elements\n", head.c_str());
    std::fflush(stdout);
    return;
  }
  double sum = 0, least = double(values[0]), largest = least;
  for (std::int64_t i = 0; i < n; ++i) {
    const double value = double(values[i]);
    sum += value;
    least = value < least || value != value ? value : least;  // a NaN shows
    largest = value > largest || value != value ? value : largest;
  }
  std::printf("%s: mean %.6g, min %.6g, max %.6g, first", head.c_str(), sum / double(n), least,
              largest);
  const Dims strides = x.strides();
  for (std::int64_t i = 0; i < std::min(n, kShown); ++i) {
    std::int64_t rest = i, offset = 0;
    for (int axis = x.rank - 1; axis >= 0; --axis) {
      offset += rest % x.dims[axis] * strides[axis];
      rest /= x.dims[axis];
    }
    std::printf(" %.6g", double(values[offset]));
  }
  std::printf("%s\n", n > kShown ? " ..." : "");
  std::fflush(stdout);
}

Launch bind_print_value(const Call& call) {
  const Tensor x = call.in(0), y = call.out();
  std::string head = call.attrs.text("message");
  if (!head.empty()) head += ' ';
  head += name_of(x.dtype);
  head += '[';
  for (int axis = 0; axis < x.rank; ++axis) {
    if (axis > 0) head += ',';
    head += std::to_string(x.dims[axis]);
  }
  head += ']';
  return [=](Stream&) {
    if (y.pointer != x.pointer) relayout(x, y);
    switch (y.dtype) {
      case DType::kFloat32:
        return print<float>(y, head);
      case DType::kFloat64:
        return print<double>(y, head);
      case DType::kInt32:
        return print<std::int32_t>(y, head);
      case DType::kInt64:
        return print<std::int64_t>(y, head);
      case DType::kUint8:
        return print<std::uint8_t>(y, head);
      case DType::kBool:
        return print<bool>(y, head);
    }
  };
}

}  // namespace

MB_KERNEL("print_value", Device::kCpu, bind_print_value)

}  // namespace mb::MB_ISA
