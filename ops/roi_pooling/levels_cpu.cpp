// The level of each box.
#include "ops/roi_pooling/boxes.h"

namespace mb::MB_ISA {
namespace {

Launch bind_levels(const Call& call) {
  const Pyramid pyramid(call.attrs);
  const float* rois = call.in(0).data<float>();
  std::int32_t* level = call.out().data<std::int32_t>();
  const std::int64_t total = call.out().count();
  return [=](Stream&) {
    for (std::int64_t i = 0; i < total; ++i) level[i] = pyramid.level_of(rois + 4 * i);
  };
}

}  // namespace

MB_KERNEL("roi_levels", Device::kCpu, bind_levels)

}  // namespace mb::MB_ISA
