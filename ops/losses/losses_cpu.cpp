// Cross-entropy of rows, and the losses of single elements.
#include <cmath>

#include "mb/elementwise.h"
#include "mb/kernel.h"
#include "mb/math.h"

namespace mb::MB_ISA {
namespace {

float row_maximum(const float* x, std::int64_t n) {
  float top = x[0];
#pragma omp simd reduction(max : top)
  for (std::int64_t i = 0; i < n; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

float row_total(const float* x, float top, std::int64_t n) {
  float total = 0.0f;
#pragma omp simd reduction(+ : total)
  for (std::int64_t i = 0; i < n; ++i) total += fast_exp(x[i] - top);
  return total;
}

// Calls body(row, label) with label -1 for a row that is ignored; refuses labels out of range.
template <typename Label, typename Body>
void each_row(const Tensor& logits, const Label* labels, std::int64_t ignored, const Body& body) {
  const std::int64_t classes = logits.dim(1);
  const std::int64_t grain = std::max<std::int64_t>(1, 4096 / classes);
  parallel_for(logits.dim(0), grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t label = labels[r];
      if (label != ignored && (label < 0 || label >= classes)) {
        fail("label ", label, " of row ", r, " is not one of ", classes, " classes");
      }
      body(r, label == ignored ? std::int64_t{-1} : label);
    }
  });
}

template <typename Label>
Launch bind_forward(const Call& call) {
  const Tensor logits = call.in(0);
  const float* x = logits.data<float>();
  const Label* labels = call.in(1).data<Label>();
  const std::int64_t ignored = call.attrs.integer("ignore_index");
  float* loss = call.out(0).data<float>();
  float* used = call.out(1).data<float>();
  const std::int64_t n = logits.dim(1);
  return [=](Stream&) {
    each_row(logits, labels, ignored, [&](std::int64_t r, std::int64_t label) {
      used[r] = label < 0 ? 0.0f : 1.0f;
      loss[r] = 0.0f;
      if (label < 0) return;
      const float* row = x + r * n;
      const float top = row_maximum(row, n);
      loss[r] = std::log(row_total(row, top, n)) - (row[label] - top);
    });
  };
}

template <typename Label>
Launch bind_backward(const Call& call) {
  const Tensor logits = call.in(0);
  const float* x = logits.data<float>();
  const Label* labels = call.in(1).data<Label>();
  const float* dloss = call.in(2).data<float>();
  const std::int64_t ignored = call.attrs.integer("ignore_index");
  float* dx = call.out().data<float>();
  const std::int64_t n = logits.dim(1);
  return [=](Stream&) {
    each_row(logits, labels, ignored, [&](std::int64_t r, std::int64_t label) {
      const float* row = x + r * n;
      float* to = dx + r * n;
      if (label < 0) {
        std::fill(to, to + n, 0.0f);
        return;
      }
      const float top = row_maximum(row, n);
      float total = 0.0f;
#pragma omp simd reduction(+ : total)
      for (std::int64_t i = 0; i < n; ++i) {
        to[i] = fast_exp(row[i] - top);
        total += to[i];
      }
      const float scale = dloss[r] / total;
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i) to[i] *= scale;
      to[label] -= dloss[r];
    });
  };
}

Launch bind_cross_entropy(const Call& call) {
  return call.in(1).dtype == DType::kInt32 ? bind_forward<std::int32_t>(call)
                                           : bind_forward<std::int64_t>(call);
}

Launch bind_cross_entropy_grad(const Call& call) {
  return call.in(1).dtype == DType::kInt32 ? bind_backward<std::int32_t>(call)
                                           : bind_backward<std::int64_t>(call);
}

// --- single elements: all operands have one shape, their layouts may differ ----------------------

template <typename F>
Launch bind_two(const Call& call, F f) {
  const Loop<3> loop = make_loop<3>({call.out(), call.in(0), call.in(1)});
  const float* x = call.in(0).data<float>();
  const float* t = call.in(1).data<float>();
  float* y = call.out().data<float>();
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 3>& at, std::int64_t n) {
      const float* xr = x + at[1];
      const float* tr = t + at[2];
      float* yr = y + at[0];
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i) {
        yr[i] = f(xr[i * loop.step[1]], tr[i * loop.step[2]]);
      }
    });
  };
}

template <typename F>
Launch bind_three(const Call& call, F f) {
  const Loop<4> loop = make_loop<4>({call.out(), call.in(0), call.in(1), call.in(2)});
  const float* x = call.in(0).data<float>();
  const float* t = call.in(1).data<float>();
  const float* dy = call.in(2).data<float>();
  float* dx = call.out().data<float>();
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 4>& at, std::int64_t n) {
      const float* xr = x + at[1];
      const float* tr = t + at[2];
      const float* gr = dy + at[3];
      float* to = dx + at[0];
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i) {
        to[i] = f(xr[i * loop.step[1]], tr[i * loop.step[2]]) * gr[i * loop.step[3]];
      }
    });
  };
}

// log(1 + e) for e in (0, 1] without losing small e: log(u) e / (u - 1), u = 1 + e rounded (Kahan).
float log1p_of(float e) {
  const float u = 1.0f + e;
  const float rest = u - 1.0f;
  const float safe = rest > 0.0f ? rest : 1.0f;
  return rest > 0.0f ? fast_log(u) * (e / safe) : e;
}

Launch bind_sigmoid_cross_entropy(const Call& call) {
  return bind_two(call, [](float x, float t) {
    const float positive = x > 0.0f ? x : 0.0f;
    return positive - x * t + log1p_of(fast_exp(-std::fabs(x)));
  });
}

Launch bind_sigmoid_cross_entropy_grad(const Call& call) {
  return bind_three(call, [](float x, float t) {
    const float e = fast_exp(-std::fabs(x));
    return (x >= 0.0f ? 1.0f : e) / (1.0f + e) - t;
  });
}

Launch bind_smooth_l1(const Call& call) {
  const float beta = float(call.attrs.real("beta"));
  const float half = beta > 0.0f ? 0.5f / beta : 0.0f;
  return bind_two(call, [=](float x, float t) {
    const float d = std::fabs(x - t);
    return d < beta ? d * d * half : d - 0.5f * beta;
  });
}

Launch bind_smooth_l1_grad(const Call& call) {
  const float beta = float(call.attrs.real("beta"));
  const float inverse = beta > 0.0f ? 1.0f / beta : 0.0f;
  return bind_three(call, [=](float x, float t) {
    const float d = x - t;
    const float sign = d > 0.0f ? 1.0f : (d < 0.0f ? -1.0f : 0.0f);
    return std::fabs(d) < beta ? d * inverse : sign;
  });
}

}  // namespace

MB_KERNEL("cross_entropy", Device::kCpu, bind_cross_entropy)
MB_KERNEL("cross_entropy_grad", Device::kCpu, bind_cross_entropy_grad)
MB_KERNEL("sigmoid_cross_entropy", Device::kCpu, bind_sigmoid_cross_entropy)
MB_KERNEL("sigmoid_cross_entropy_grad", Device::kCpu, bind_sigmoid_cross_entropy_grad)
MB_KERNEL("smooth_l1", Device::kCpu, bind_smooth_l1)
MB_KERNEL("smooth_l1_grad", Device::kCpu, bind_smooth_l1_grad)

}  // namespace mb::MB_ISA
