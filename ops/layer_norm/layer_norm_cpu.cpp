// Layer norm of rows and its gradient. A row is read again while it is still in the cache.
#include <cmath>

#include "mb/channels.h"
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

struct Rows {
  std::int64_t count = 0, length = 0;

  explicit Rows(const Call& call) : length(call.in(1).count()) {
    count = call.in(0).count() / length;
  }
  std::int64_t grain() const { return std::max<std::int64_t>(1, 16384 / length); }
  // Blocks of rows whose sums for gamma and beta are added in order; independent of the threads.
  static constexpr std::int64_t kBlocks = 64;
  std::int64_t blocks() const {
    const std::int64_t rows = std::max<std::int64_t>(1, 16384 / length);  // at least, for each
    return std::min(kBlocks, (count + rows - 1) / rows);
  }
};

Launch bind_layer_norm(const Call& call) {
  const Rows rows(call);
  const float* x = call.in(0).data<float>();
  const float* gamma = call.in(1).data<float>();
  const float* beta = call.in(2).data<float>();
  const float eps = float(call.attrs.real("eps"));
  float* y = call.out().data<float>();
  const std::int64_t n = rows.length;
  return [=](Stream&) {
    parallel_for(rows.count, rows.grain(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const float* from = x + r * n;
        float* to = y + r * n;
        float mean, m2;
        moments_of_plane(from, n, &mean, &m2);
        const float inverse = 1.0f / std::sqrt(m2 / float(n) + eps);
#pragma omp simd
        for (std::int64_t i = 0; i < n; ++i) {
          to[i] = (from[i] - mean) * inverse * gamma[i] + beta[i];
        }
      }
    });
  };
}

std::size_t workspace_layer_norm_grad(const Call& call) {
  const Rows rows(call);
  return std::size_t(rows.blocks() * rows.length) * 2 * sizeof(float);
}

// One row: dx, and its share of dgamma and dbeta.
void grad_row(const float* x, const float* gamma, const float* dy, float* dx, float* dgamma,
              float* dbeta, std::int64_t n, float eps) {
  float mean, m2;
  moments_of_plane(x, n, &mean, &m2);
  const float inverse = 1.0f / std::sqrt(m2 / float(n) + eps);
  float total = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : total, product)
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = dy[i] * gamma[i];
    total += g;
    product += g * (x[i] - mean);
  }
  const float level = total / float(n);
  const float slope = product / float(n) * inverse * inverse;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float centred = x[i] - mean, d = dy[i];
    dgamma[i] += d * centred * inverse;
    dbeta[i] += d;
    dx[i] = inverse * (d * gamma[i] - level - centred * slope);
  }
}

Launch bind_layer_norm_grad(const Call& call) {
  const Rows rows(call);
  const float* x = call.in(0).data<float>();
  const float* gamma = call.in(1).data<float>();
  const float* dy = call.in(2).data<float>();
  const float eps = float(call.attrs.real("eps"));
  float* dx = call.out(0).data<float>();
  float* dgamma = call.out(1).data<float>();
  float* dbeta = call.out(2).data<float>();
  float* partial = static_cast<float*>(call.workspace.pointer);
  const std::int64_t n = rows.length, blocks = rows.blocks();
  return [=](Stream&) {
    parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b) {
        float* sums = partial + 2 * b * n;
        std::fill(sums, sums + 2 * n, 0.0f);
        const std::int64_t last = rows.count * (b + 1) / blocks;
        for (std::int64_t r = rows.count * b / blocks; r < last; ++r) {
          grad_row(x + r * n, gamma, dy + r * n, dx + r * n, sums, sums + n, n, eps);
        }
      }
    });
    std::fill(dgamma, dgamma + n, 0.0f);
    std::fill(dbeta, dbeta + n, 0.0f);
    for (std::int64_t b = 0; b < blocks; ++b) {
      const float* sums = partial + 2 * b * n;
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i) {
        dgamma[i] += sums[i];
        dbeta[i] += sums[n + i];
      }
    }
  };
}

}  // namespace

MB_KERNEL("layer_norm", Device::kCpu, bind_layer_norm)
MB_KERNEL("layer_norm_grad", Device::kCpu, bind_layer_norm_grad, workspace_layer_norm_grad)

}  // namespace mb::MB_ISA
