// Anchors: every cell box at every pixel.
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

Launch bind_anchors(const Call& call) {
  const std::vector<double> cells = call.attrs.reals("cells");
  const std::int64_t height = call.attrs.integers("grid")[0];
  const std::int64_t width = call.attrs.integers("grid")[1];
  const auto stride_y = float(call.attrs.integers("stride")[0]);
  const auto stride_x = float(call.attrs.integers("stride")[1]);
  const auto numbers = std::int64_t(cells.size());
  std::vector<float> cell(cells.begin(), cells.end());
  float* y = call.out().data<float>();
  return [=](Stream&) {
    const std::int64_t grain = 4096 / std::max<std::int64_t>(1, width * numbers) + 1;
    parallel_for(height, grain, [&](std::int64_t begin, std::int64_t end) {
      float* at = y + begin * width * numbers;
      for (std::int64_t i = begin; i < end; ++i) {
        for (std::int64_t j = 0; j < width; ++j) {
          const float shift[2] = {float(j) * stride_x, float(i) * stride_y};
          for (std::int64_t k = 0; k < numbers; ++k) *at++ = cell[k] + shift[k & 1];
        }
      }
    });
  };
}

}  // namespace

MB_KERNEL("anchors", Device::kCpu, bind_anchors)

}  // namespace mb::MB_ISA
