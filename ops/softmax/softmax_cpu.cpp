// Softmax and its logarithm along an axis, and their gradients.
#include <array>
#include <cmath>

#include "mb/kernel.h"
#include "mb/math.h"

namespace mb::MB_ISA {
namespace {

// A tensor around one axis, in rows order: [outer][length][inner].
struct Axis {
  std::int64_t outer = 1, length = 1, inner = 1;

  explicit Axis(const Call& call) {
    const Tensor& x = call.in(0);
    const int axis = int(call.attrs.integer("axis"));
    for (int i = 0; i < axis; ++i) outer *= x.dim(i);
    length = x.dim(axis);
    for (int i = axis + 1; i < x.rank; ++i) inner *= x.dim(i);
  }
};

constexpr std::int64_t kTile = 64;  // neighbours along the inner axes that are handled together

// Calls row(offset) for each slice when the axis is the innermost, otherwise tile(offset, width)
// for up to kTile neighbouring slices.
template <typename Row, typename Tile>
void each_slice(const Axis& a, const Row& row, const Tile& tile) {
  if (a.length == 0) return;
  if (a.inner == 1) {
    const std::int64_t grain = std::max<std::int64_t>(1, 4096 / a.length);
    parallel_for(a.outer, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) row(r * a.length);
    });
    return;
  }
  const std::int64_t tiles = (a.inner + kTile - 1) / kTile;
  parallel_for(a.outer * tiles, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t at = t % tiles * kTile;
      tile(t / tiles * a.length * a.inner + at, std::min(kTile, a.inner - at));
    }
  });
}

template <bool kLog>
void softmax_row(float* y, const float* x, std::int64_t n) {
  float top = x[0];
#pragma omp simd reduction(max : top)
  for (std::int64_t i = 0; i < n; ++i) top = x[i] > top ? x[i] : top;
  float total = 0.0f;
  if constexpr (kLog) {
#pragma omp simd reduction(+ : total)
    for (std::int64_t i = 0; i < n; ++i) total += fast_exp(x[i] - top);
    const float log_total = std::log(total);
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] = (x[i] - top) - log_total;
  } else {
#pragma omp simd reduction(+ : total)
    for (std::int64_t i = 0; i < n; ++i) {
      y[i] = fast_exp(x[i] - top);
      total += y[i];
    }
    const float share = 1.0f / total;
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] *= share;
  }
}

template <bool kLog>
void softmax_tile(float* y, const float* x, const Axis& a, std::int64_t width) {
  std::array<float, kTile> top, total{};
  std::copy(x, x + width, top.begin());
  for (std::int64_t k = 1; k < a.length; ++k) {
    const float* from = x + k * a.inner;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) top[i] = from[i] > top[i] ? from[i] : top[i];
  }
  for (std::int64_t k = 0; k < a.length; ++k) {
    const float* from = x + k * a.inner;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) total[i] += fast_exp(from[i] - top[i]);
  }
#pragma omp simd
  for (std::int64_t i = 0; i < width; ++i) total[i] = kLog ? fast_log(total[i]) : 1.0f / total[i];
  for (std::int64_t k = 0; k < a.length; ++k) {
    const float* from = x + k * a.inner;
    float* to = y + k * a.inner;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) {
      const float shifted = from[i] - top[i];
      to[i] = kLog ? shifted - total[i] : fast_exp(shifted) * total[i];
    }
  }
}

template <bool kLog>
Launch bind_softmax(const Call& call) {
  const Axis a(call);
  const float* x = call.in(0).data<float>();
  float* y = call.out().data<float>();
  return [=](Stream&) {
    each_slice(
        a, [&](std::int64_t at) { softmax_row<kLog>(y + at, x + at, a.length); },
        [&](std::int64_t at, std::int64_t width) { softmax_tile<kLog>(y + at, x + at, a, width); });
  };
}

// dx = y (dy - sum of y dy), or dy - exp(y) sum of dy.
template <bool kLog>
float grad_term(float y, float dy) {
  return kLog ? dy : y * dy;
}

template <bool kLog>
float grad_of(float y, float dy, float total) {
  return kLog ? dy - fast_exp(y) * total : y * (dy - total);
}

template <bool kLog>
void grad_row(float* dx, const float* y, const float* dy, std::int64_t n) {
  float total = 0.0f;
#pragma omp simd reduction(+ : total)
  for (std::int64_t i = 0; i < n; ++i) total += grad_term<kLog>(y[i], dy[i]);
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) dx[i] = grad_of<kLog>(y[i], dy[i], total);
}

template <bool kLog>
void grad_tile(float* dx, const float* y, const float* dy, const Axis& a, std::int64_t width) {
  std::array<float, kTile> total{};
  for (std::int64_t k = 0; k < a.length; ++k) {
    const std::int64_t at = k * a.inner;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) total[i] += grad_term<kLog>(y[at + i], dy[at + i]);
  }
  for (std::int64_t k = 0; k < a.length; ++k) {
    const std::int64_t at = k * a.inner;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) {
      dx[at + i] = grad_of<kLog>(y[at + i], dy[at + i], total[i]);
    }
  }
}

template <bool kLog>
Launch bind_grad(const Call& call) {
  const Axis a(call);
  const float* y = call.in(0).data<float>();
  const float* dy = call.in(1).data<float>();
  float* dx = call.out().data<float>();
  return [=](Stream&) {
    each_slice(
        a, [&](std::int64_t at) { grad_row<kLog>(dx + at, y + at, dy + at, a.length); },
        [&](std::int64_t at, std::int64_t width) {
          grad_tile<kLog>(dx + at, y + at, dy + at, a, width);
        });
  };
}

}  // namespace

MB_KERNEL("softmax", Device::kCpu, bind_softmax<false>)
MB_KERNEL("log_softmax", Device::kCpu, bind_softmax<true>)
MB_KERNEL("softmax_grad", Device::kCpu, bind_grad<false>)
MB_KERNEL("log_softmax_grad", Device::kCpu, bind_grad<true>)

}  // namespace mb::MB_ISA
