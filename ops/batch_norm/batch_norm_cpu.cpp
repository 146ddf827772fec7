// Moments, normalise and the maps of their gradients: each one walk over memory.
#include <cmath>

#include "mb/channels.h"
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

std::size_t workspace_partials(const Call& call) { return partial_bytes(channels_of(call.in(0))); }

float* workspace_of(const Call& call) { return static_cast<float*>(call.workspace.pointer); }

Launch bind_moments(const Call& call) {
  const Channels view = channels_of(call.in(0));
  const float* x = call.in(0).data<float>();
  float* mean = call.out(0).data<float>();
  float* m2 = call.out(1).data<float>();
  float* partial = workspace_of(call);
  return [=](Stream&) {
    if (view.count() == 0) {
      std::fill(mean, mean + view.channels, 0.0f);
      std::fill(m2, m2 + view.channels, 0.0f);
      return;
    }
    block_moments(view, x, partial);
    merge_moments(view, partial, mean, m2);
  };
}

std::size_t workspace_scale(const Call& call) {
  return std::size_t(call.in(0).dim(1)) * sizeof(float);
}

Launch bind_normalise(const Call& call) {
  const Channels view = channels_of(call.in(0));
  const float* x = call.in(0).data<float>();
  const float* mean = call.in(1).data<float>();
  const float* var = call.in(2).data<float>();
  const float* gamma = call.in(3).data<float>();
  const float* beta = call.in(4).data<float>();
  const float eps = float(call.attrs.real("eps"));
  float* y = call.out().data<float>();
  float* scale = workspace_of(call);
  return [=](Stream&) {
    for (std::int64_t c = 0; c < view.channels; ++c) scale[c] = gamma[c] / std::sqrt(var[c] + eps);
    map_channels<false, true>(view, y, nullptr, x, {nullptr, scale, mean, beta});
  };
}

Launch bind_normalise_sums(const Call& call) {
  const Channels view = channels_of(call.in(0));
  const float* x = call.in(0).data<float>();
  const float* dy = call.in(1).data<float>();
  const float* mean = call.in(2).data<float>();
  const float* var = call.in(3).data<float>();
  const float eps = float(call.attrs.real("eps"));
  float* dgamma = call.out(0).data<float>();
  float* dbeta = call.out(1).data<float>();
  float* partial = workspace_of(call);
  return [=](Stream&) {
    const Channels used = view.count() == 0 ? Channels{0, view.channels, 1} : view;
    block_sums(used, x, dy, mean, partial);
    merge_sums(used, partial, dbeta, dgamma);
    for (std::int64_t c = 0; c < view.channels; ++c) dgamma[c] /= std::sqrt(var[c] + eps);
  };
}

Launch bind_scale(const Call& call) {
  const Channels view = channels_of(call.in(0));
  const float* dy = call.in(0).data<float>();
  const float* scale = call.in(1).data<float>();
  float* y = call.out().data<float>();
  return [=](Stream&) {
    map_channels<true, false>(view, y, dy, nullptr, {scale, nullptr, nullptr, nullptr});
  };
}

Launch bind_affine(const Call& call) {
  const Channels view = channels_of(call.in(0));
  const float* x = call.in(0).data<float>();
  const Coefficients k{nullptr, call.in(1).data<float>(), call.in(2).data<float>(),
                       call.in(3).data<float>()};
  float* y = call.out().data<float>();
  return [=](Stream&) { map_channels<false, true>(view, y, nullptr, x, k); };
}

Launch bind_affine_sum(const Call& call) {
  const Channels view = channels_of(call.in(0));
  const float* dy = call.in(0).data<float>();
  const float* x = call.in(1).data<float>();
  const Coefficients k{call.in(2).data<float>(), call.in(3).data<float>(), call.in(4).data<float>(),
                       call.in(5).data<float>()};
  float* y = call.out().data<float>();
  return [=](Stream&) { map_channels<true, true>(view, y, dy, x, k); };
}

}  // namespace

MB_KERNEL("channel_moments", Device::kCpu, bind_moments, workspace_partials)
MB_KERNEL("channel_normalise", Device::kCpu, bind_normalise, workspace_scale)
MB_KERNEL("channel_normalise_sums", Device::kCpu, bind_normalise_sums, workspace_partials)
MB_KERNEL("channel_scale", Device::kCpu, bind_scale)
MB_KERNEL("channel_affine", Device::kCpu, bind_affine)
MB_KERNEL("channel_affine_sum", Device::kCpu, bind_affine_sum)

}  // namespace mb::MB_ISA
