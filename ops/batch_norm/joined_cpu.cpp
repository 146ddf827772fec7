// Batch norm joined with its neighbours: each one walk over memory.
#include <cmath>

#include "mb/channels.h"
#include "mb/kernel.h"
#include "ops/unary/functors.h"

namespace mb::MB_ISA {
namespace {

// y[at] = f(at, channel) for `n` elements; flatten, or a call inside keeps it from vectorising.
template <typename F>
[[gnu::flatten]] void map_row_of_channels(float* y, std::int64_t at, std::int64_t n, const F& f) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[at + i] = f(at + i, i);
}

template <typename F>
[[gnu::flatten]] void map_plane(float* y, std::int64_t at, std::int64_t n, std::int64_t channel,
                                const F& f) {
#pragma omp simd
  for (std::int64_t i = at; i < at + n; ++i) y[i] = f(i, channel);
}

template <typename F>
void map_elements(const Channels& view, float* y, const F& f) {
  parallel_for(view.blocks(), view.grain(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      const std::int64_t first = b * view.block_rows();
      for (std::int64_t r = first; r < first + view.rows_of(b); ++r) {
        const std::int64_t at = r * view.channels * view.inner;
        if (view.inner == 1) {
          map_row_of_channels(y, at, view.channels, f);
          continue;
        }
        for (std::int64_t c = 0; c < view.channels; ++c) {
          map_plane(y, at + c * view.inner, view.inner, c, f);
        }
      }
    }
  });
}

// Mean, variance, gamma and beta: inputs from `first` on. `scale` is memory for gamma / deviation.
struct Norm {
  const float *mean, *var, *gamma, *beta;
  float eps;
  float* scale;

  Norm(const Call& call, std::size_t first, float* scale)
      : mean(call.in(first).data<float>()),
        var(call.in(first + 1).data<float>()),
        gamma(call.in(first + 2).data<float>()),
        beta(call.in(first + 3).data<float>()),
        eps(float(call.attrs.real("eps"))),
        scale(scale) {}

  void prepare(std::int64_t channels) const {  // in the same words as bind_normalise
    for (std::int64_t c = 0; c < channels; ++c) scale[c] = gamma[c] / std::sqrt(var[c] + eps);
  }
  float operator()(float x, std::int64_t c) const {
    return affine<false, true>(0.0f, x, 0.0f, scale[c], mean[c], beta[c]);
  }
};

// dy where the ReLU behind the norm let x through. The norm is computed again, with the same bits.
struct Passed {
  Norm norm;
  float operator()(float x, float dy, std::int64_t c) const { return ReluGrad{}(norm(x, c), dy); }
};

std::size_t workspace_scale(const Call& call) {
  return std::size_t(call.in(0).dim(1)) * sizeof(float);
}

template <bool kResidual, bool kRelu>
Launch bind_joined(const Call& call) {
  const Channels view = channels_of(call.in(0));
  const float* x = call.in(0).data<float>();
  const float* residual = kResidual ? call.in(1).data<float>() : nullptr;
  const Norm norm(call, kResidual ? 2 : 1, static_cast<float*>(call.workspace.pointer));
  float* y = call.out().data<float>();
  return [=](Stream&) {
    norm.prepare(view.channels);
    map_elements(view, y, [=](std::int64_t at, std::int64_t c) {
      float v = norm(x[at], c);
      if constexpr (kResidual) v += residual[at];
      if constexpr (kRelu) v = Relu{}(v);
      return v;
    });
  };
}

Launch bind_normalise_joined(const Call& call) {
  const bool residual = call.attrs.flag("residual"), relu = call.attrs.flag("relu");
  if (residual) return relu ? bind_joined<true, true>(call) : bind_joined<true, false>(call);
  return relu ? bind_joined<false, true>(call) : bind_joined<false, false>(call);
}

std::size_t workspace_sums(const Call& call) {
  return workspace_scale(call) + partial_bytes(channels_of(call.in(0)));
}

Launch bind_relu_normalise_sums(const Call& call) {
  const Channels view = channels_of(call.in(0));
  const float* x = call.in(0).data<float>();
  const float* dy = call.in(1).data<float>();
  float* partial = static_cast<float*>(call.workspace.pointer);
  const std::size_t used = partial_bytes(view) / sizeof(float);
  const Passed passed{Norm(call, 2, partial + used)};
  float* dgamma = call.out(0).data<float>();
  float* dbeta = call.out(1).data<float>();
  return [=](Stream&) {
    const Norm& norm = passed.norm;
    norm.prepare(view.channels);
    const Channels shape = view.count() == 0 ? Channels{0, view.channels, 1} : view;
    block_sums(shape, x, dy, norm.mean, partial, passed);
    merge_sums(shape, partial, dbeta, dgamma);
    for (std::int64_t c = 0; c < view.channels; ++c) {
      dgamma[c] /= std::sqrt(norm.var[c] + norm.eps);
    }
  };
}

Launch bind_relu_affine_sum(const Call& call) {
  const Channels view = channels_of(call.in(0));
  const float* dy = call.in(0).data<float>();
  const float* x = call.in(1).data<float>();
  const Coefficients k{call.in(2).data<float>(), call.in(3).data<float>(), call.in(4).data<float>(),
                       call.in(5).data<float>()};
  const Passed passed{Norm(call, 6, static_cast<float*>(call.workspace.pointer))};
  float* y = call.out().data<float>();
  return [=](Stream&) {
    passed.norm.prepare(view.channels);
    map_elements(view, y, [=](std::int64_t at, std::int64_t c) {
      return affine<true, true>(passed(x[at], dy[at], c), x[at], k.a[c], k.b[c], k.m[c], k.s[c]);
    });
  };
}

}  // namespace

MB_KERNEL("channel_normalise_joined", Device::kCpu, bind_normalise_joined, workspace_scale)
MB_KERNEL("channel_relu_normalise_sums", Device::kCpu, bind_relu_normalise_sums, workspace_sums)
MB_KERNEL("channel_relu_affine_sum", Device::kCpu, bind_relu_affine_sum, workspace_scale)

}  // namespace mb::MB_ISA
