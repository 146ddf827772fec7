// exp, log, tanh, erf and friends in float32, free of branches and calls, so that loops vectorise.
//
// Coefficients: weighted least-squares (Lawson) fits, relative error of each fit below 2e-7; the
// functions keep to about 2 units in the last place where the result is a normal number.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace mb::MB_ISA {

// a * b + c, rounded once where the instruction set has it.
[[gnu::always_inline]] inline float fused(float a, float b, float c) {
#ifdef __FMA__
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

// 2 ** n for integers n in [-126, 127].
[[gnu::always_inline]] inline float power_of_two(std::int32_t n) {
  return std::bit_cast<float>((n + 127) << 23);
}

// e ** x = 2 ** n * e ** r with |r| <= log(2) / 2. Overflows to inf, underflows through denormals.
[[gnu::always_inline]] inline float fast_exp(float x) {
  x = x > 89.0f ? 89.0f : x;  // a NaN passes both comparisons
  x = x < -104.0f ? -104.0f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = fused(x, 1.44269504f, kRound);
  const float whole = shifted - kRound;
  const std::int32_t n =
      std::int32_t(std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(kRound));
  float r = fused(whole, -0.693359375f, x);  // log(2) in two parts: the first product is exact
  r = fused(whole, 2.12194440e-4f, r);
  float p = 1.390151751e-03f;
  p = fused(p, r, 8.363739824e-03f);
  p = fused(p, r, 4.166686113e-02f);
  p = fused(p, r, 1.666657369e-01f);
  p = fused(p, r, 4.999999953e-01f);
  p = fused(p, r * r, r) + 1.0f;
  const std::int32_t bounded = n < -160 ? -160 : (n > 160 ? 160 : n);  // whatever a NaN left
  const std::int32_t half = bounded >> 1;  // two factors: 2^128 and 2^-149 are no normal numbers
  return p * power_of_two(half) * power_of_two(bounded - half);
}

// Natural logarithm: x = 2 ** n * (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)).
[[gnu::always_inline]] inline float fast_log(float x) {
  const bool tiny = x < std::numeric_limits<float>::min();
  const float scaled = tiny ? x * 8388608.0f : x;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(scaled);
  constexpr std::uint32_t kRootHalf = 0x3F3504F3u;
  const std::int32_t n = std::int32_t(bits - kRootHalf) >> 23;
  const float f = std::bit_cast<float>(bits - (std::uint32_t(n) << 23)) - 1.0f;
  const float exponent = float(n) - (tiny ? 23.0f : 0.0f);
  float p = 7.035438053e-02f;
  p = fused(p, f, -1.151388901e-01f);
  p = fused(p, f, 1.167743359e-01f);
  p = fused(p, f, -1.242025812e-01f);
  p = fused(p, f, 1.424929507e-01f);
  p = fused(p, f, -1.666805235e-01f);
  p = fused(p, f, 2.000071537e-01f);
  p = fused(p, f, -2.499999405e-01f);
  p = fused(p, f, 3.333333117e-01f);
  const float square = f * f;
  float y = p * f * square;
  y = fused(exponent, -2.12194440e-4f, y);
  y = fused(square, -0.5f, y);
  y = fused(exponent, 0.693359375f, f + y);
  y = x < std::numeric_limits<float>::infinity() ? y : x;  // inf and NaN stay
  y = x == 0.0f ? -std::numeric_limits<float>::infinity() : y;
  return x < 0.0f ? std::numeric_limits<float>::quiet_NaN() : y;
}

[[gnu::always_inline]] inline float fast_tanh(float x) {
  const float size = std::fabs(x);
  const float square = x * x;
  float p = -5.991018975e-03f;
  p = fused(p, square, 2.092276978e-02f);
  p = fused(p, square, -5.383484285e-02f);
  p = fused(p, square, 1.333266148e-01f);
  p = fused(p, square, -3.333332784e-01f);
  const float small = fused(p * square, x, x);
  const float large = std::copysign(1.0f - 2.0f / (fast_exp(2.0f * size) + 1.0f), x);
  return size < 0.625f ? small : large;
}

[[gnu::always_inline]] inline float fast_sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

// The error function, a rational function of x^2 times x; |erf| rounds to 1 from 3.924 on.
[[gnu::always_inline]] inline float fast_erf(float x) {
  x = x > 3.924f ? 3.924f : x;
  x = x < -3.924f ? -3.924f : x;
  const float t = x * x;
  float p = -1.282205338e-08f;
  p = fused(p, t, 4.613295835e-06f);
  p = fused(p, t, 3.769156735e-04f);
  p = fused(p, t, 3.839432348e-03f);
  p = fused(p, t, 5.424861344e-02f);
  p = fused(p, t, 1.851444641e-01f);
  p = fused(p, t, 1.128379169e+00f);
  float q = 6.243727925e-05f;
  q = fused(q, t, 1.301898287e-03f);
  q = fused(q, t, 1.543222566e-02f);
  q = fused(q, t, 1.138805732e-01f);
  q = fused(q, t, 4.974134155e-01f);
  q = fused(q, t, 1.0f);
  const float y = x * (p / q);
  const float top = y > 1.0f ? 1.0f : y;
  return top < -1.0f ? -1.0f : top;
}

// log(1 + e ** x) without overflow: max(x, 0) + log1p(e ** -|x|).
[[gnu::always_inline]] inline float fast_softplus(float x) {
  const float e = fast_exp(-std::fabs(x));
  const float u = 1.0f + e;
  // log1p by Kahan's correction; e / (u - 1) restores what rounding 1 + e lost.
  const float lost = u - 1.0f;
  const float tail = lost == 0.0f ? e : fast_log(u) * (e / (lost == 0.0f ? 1.0f : lost));
  const float y = (x > 0.0f ? x : 0.0f) + tail;
  return x == x ? y : x;
}

}  // namespace mb::MB_ISA
