// Soft clipping and its gradient.
#include "mb/elementwise.h"
#include "mb/kernel.h"
#include "mb/math.h"

namespace mb::MB_ISA {
namespace {

struct SoftClip {
  float limit;
  float operator()(float x) const { return limit * fast_tanh(x / limit); }
};

struct SoftClipGrad {
  float limit;
  float operator()(float y, float dy) const {
    const float share = y / limit;
    return dy * (1.0f - share * share);
  }
};

Launch bind_soft_clip(const Call& call) {
  const Loop<2> loop = make_loop<2>({call.out(), call.in(0)});
  float* y = call.out().data<float>();
  const float* x = call.in(0).data<float>();
  const SoftClip f{float(call.attrs.real("limit"))};
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
      map_row(y + at[0], x + at[1], n, loop.step[1], f);
    });
  };
}

Launch bind_soft_clip_grad(const Call& call) {
  const Loop<3> loop = make_loop<3>({call.out(), call.in(0), call.in(1)});
  float* dx = call.out().data<float>();
  const float* y = call.in(0).data<float>();
  const float* dy = call.in(1).data<float>();
  const SoftClipGrad f{float(call.attrs.real("limit"))};
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 3>& at, std::int64_t n) {
      map_row(dx + at[0], y + at[1], dy + at[2], n, loop.step[1], loop.step[2], f);
    });
  };
}

}  // namespace

MB_KERNEL("soft_clip", Device::kCpu, bind_soft_clip)
MB_KERNEL("soft_clip_grad", Device::kCpu, bind_soft_clip_grad)

}  // namespace mb::MB_ISA
