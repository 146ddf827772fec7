// Random values: each element is a function of (key of its row, salt, place in its row).
#include <cmath>

#include "mb/elementwise.h"
#include "mb/kernel.h"
#include "mb/math.h"
#include "mb/random.h"

namespace mb::MB_ISA {
namespace {

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15ull;

// The part of random_bits that one row shares.
std::uint64_t stream_of(std::int64_t key, std::uint64_t salt) {
  return mix_bits(std::uint64_t(key) ^ mix_bits(salt + kGolden));
}
std::uint64_t bits_at(std::uint64_t stream, std::int64_t counter) {
  return mix_bits(stream + (std::uint64_t(counter) + 1) * kGolden);
}

// cos(2 pi t) for t in [0, 1): a fit in s = (t - 1/2)^2 of absolute error 2e-10.
float cosine_of_turn(float t) {
  const float s = (t - 0.5f) * (t - 0.5f);
  float p = -1.453236337e+00f;
  p = fused(p, s, 7.800239945e+00f);
  p = fused(p, s, -2.640470548e+01f);
  p = fused(p, s, 6.024213769e+01f);
  p = fused(p, s, -8.545665887e+01f);
  p = fused(p, s, 6.493938910e+01f);
  p = fused(p, s, -1.973920874e+01f);
  return -fused(p, s, 1.0f);
}

struct DrawUniform {
  float operator()(std::uint64_t bits) const { return uniform(bits); }
};
struct DrawNormal {
  float operator()(std::uint64_t bits) const {
    const float first = float(std::int32_t(bits >> 40) + 1) * 0x1p-24f;
    const float second = float(std::int32_t((bits >> 16) & 0xFFFFFF)) * 0x1p-24f;
    return std::sqrt(-2.0f * fast_log(first)) * cosine_of_turn(second);
  }
};

template <typename Draw>
Launch bind_draw(const Call& call) {
  const Tensor& y = call.out();
  const std::int64_t* key = call.in(0).data<std::int64_t>();
  const std::uint64_t salt = std::uint64_t(call.attrs.integer("salt"));
  const std::int64_t rows = call.in(0).dims[0];
  const std::int64_t width = rows == 0 ? 0 : y.count() / rows;
  float* to = y.data<float>();
  return [=](Stream&) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::uint64_t stream = stream_of(key[row], salt);
      float* t = to + row * width;
      parallel_for(width, 4096, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) t[i] = Draw{}(bits_at(stream, i));
      });
    }
  };
}

// Walks x in memory order; counters are places in rows order, whatever the layout.
Launch bind_dropout(const Call& call) {
  const Tensor &x = call.in(0), &y = call.out();
  const std::int64_t* key = call.in(1).data<std::int64_t>();
  const std::int64_t keys = call.in(1).dims[0];
  const std::uint64_t salt = std::uint64_t(call.attrs.integer("salt"));
  const double p = call.attrs.real("p");
  const float scale = float(1.0 / (1.0 - p));
  const auto threshold = std::uint64_t(std::ceil(p * 0x1p24));
  Tensor counters = y;  // the same shape, in rows
  counters.layout = Layout::kRows;
  const Loop<3> loop = make_loop<3>({y, x, counters});
  const std::int64_t width = keys == 0 ? 1 : std::max<std::int64_t>(1, y.count() / keys);
  const float* from = x.data<float>();
  float* to = y.data<float>();
  return [=](Stream&) {
    run_loop(loop, [&](const std::array<std::int64_t, 3>& at, std::int64_t n) {
      const float* f = from + at[1];
      float* t = to + at[0];
      const std::int64_t step = loop.step[2];
      std::int64_t i = 0;
      while (i < n) {  // one stretch for each key
        const std::int64_t place = at[2] + i * step;
        const std::int64_t row = place / width, counter = place - row * width;
        const std::int64_t left = step == 0 ? 1 : (width - counter + step - 1) / step;
        const std::int64_t end = std::min(n, i + left);
        const std::uint64_t stream = stream_of(key[row], salt);
        const std::int64_t base = counter - i * step;
#pragma omp simd
        for (std::int64_t k = i; k < end; ++k) {
          const bool keep = bits_at(stream, base + k * step) >> 40 >= threshold;
          const float scaled = f[k] * scale;
          t[k] = keep ? scaled : 0.0f;
        }
        i = end;
      }
    });
  };
}

}  // namespace

MB_KERNEL("dropout", Device::kCpu, bind_dropout)
MB_KERNEL("uniform", Device::kCpu, bind_draw<DrawUniform>)
MB_KERNEL("normal", Device::kCpu, bind_draw<DrawNormal>)

}  // namespace mb::MB_ISA
