// Walks over a tensor channel by channel: blocked reductions, and affine maps with a coefficient
// for each channel. Shared by the rooms that normalise.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "mb/parallel.h"
#include "mb/tensor.h"

namespace mb::MB_ISA {

// Memory order of a tensor around axis 1: [outer][channels][inner]. Inner is 1 for channels_last
// and for rank 2, where the loops run over channels; otherwise they run over inner.
struct Channels {
  std::int64_t outer = 1;
  std::int64_t channels = 1;
  std::int64_t inner = 1;

  std::int64_t count() const { return outer * inner; }  // values of one channel
  // Blocks do not depend on the number of threads, so nor do the results of reductions. About
  // 128 KiB: the second walk over a block finds it in the cache.
  std::int64_t block_rows() const {
    constexpr std::int64_t kBlock = 32768;
    return inner > 1 ? 1 : std::max<std::int64_t>(16, kBlock / std::max<std::int64_t>(channels, 1));
  }
  std::int64_t blocks() const { return (outer + block_rows() - 1) / block_rows(); }
  std::int64_t rows_of(std::int64_t block) const {
    return std::min(block_rows(), outer - block * block_rows());
  }
  // A thread should have this many blocks to be worth waking.
  std::int64_t grain() const {
    const std::int64_t size = std::max<std::int64_t>(block_rows() * channels * inner, 1);
    return std::max<std::int64_t>(1, 16384 / size);
  }
};

inline Channels channels_of(const Tensor& x) {
  Channels view;
  view.channels = x.dim(1);
  std::int64_t inner = 1;
  for (int axis = 2; axis < x.rank; ++axis) inner *= x.dim(axis);
  view.outer = x.dim(0);
  (x.layout == Layout::kChannelsLast ? view.outer : view.inner) *= inner;
  return view;
}

// Narrow rows are taken several at a time, which spares accumulator traffic; wide ones one by one,
// since interleaved streams within a page confuse the prefetcher (measured: 10 against 18 GB/s).
constexpr std::int64_t kWideRow = 128;

// Mean and sum of squared deviations of each channel over `rows` rows of `channels` numbers.
inline void moments_of_rows(const float* x, std::int64_t rows, std::int64_t channels, float* mean,
                            float* m2) {
  // Sums of differences from the first row: a mean far from 0 costs no precision.
  std::fill(mean, mean + channels, 0.0f);
  std::fill(m2, m2 + channels, 0.0f);
  const float* first = x;
  const std::int64_t quads = channels <= kWideRow ? rows / 4 : 0;
  for (std::int64_t q = 0; q < quads; ++q) {
    const float* a = x + 4 * q * channels;
    const float* b = a + channels;
    const float* c = b + channels;
    const float* d = c + channels;
#pragma omp simd
    for (std::int64_t i = 0; i < channels; ++i) {
      const float f = first[i];
      mean[i] += ((a[i] - f) + (b[i] - f)) + ((c[i] - f) + (d[i] - f));
    }
  }
  for (std::int64_t r = 4 * quads; r < rows; ++r) {
    const float* a = x + r * channels;
#pragma omp simd
    for (std::int64_t i = 0; i < channels; ++i) mean[i] += a[i] - first[i];
  }
  const float share = 1.0f / float(rows);
#pragma omp simd
  for (std::int64_t i = 0; i < channels; ++i) mean[i] = first[i] + mean[i] * share;
  for (std::int64_t q = 0; q < quads; ++q) {
    const float* a = x + 4 * q * channels;
    const float* b = a + channels;
    const float* c = b + channels;
    const float* d = c + channels;
#pragma omp simd
    for (std::int64_t i = 0; i < channels; ++i) {
      const float m = mean[i];
      const float da = a[i] - m, db = b[i] - m, dc = c[i] - m, dd = d[i] - m;
      m2[i] += (da * da + db * db) + (dc * dc + dd * dd);
    }
  }
  for (std::int64_t r = 4 * quads; r < rows; ++r) {
    const float* a = x + r * channels;
#pragma omp simd
    for (std::int64_t i = 0; i < channels; ++i) m2[i] += (a[i] - mean[i]) * (a[i] - mean[i]);
  }
}

// The same of one contiguous plane (one channel, n numbers).
inline void moments_of_plane(const float* x, std::int64_t n, float* mean, float* m2) {
  const float first = x[0];
  float total = 0.0f;
#pragma omp simd reduction(+ : total)
  for (std::int64_t i = 0; i < n; ++i) total += x[i] - first;
  const float m = first + total / float(n);
  float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
  for (std::int64_t i = 0; i < n; ++i) squares += (x[i] - m) * (x[i] - m);
  *mean = m;
  *m2 = squares;
}

// What block_sums takes of dy: all of it, or what a mask (x, dy, channel) lets through.
struct All {
  float operator()(float, float dy, std::int64_t) const { return dy; }
};

// Sums of dy and of dy (x - mean) for each channel over `rows` rows.
template <typename Mask>
[[gnu::flatten]] void sums_of_rows(const float* x, const float* dy, const float* mean,
                                   std::int64_t rows, std::int64_t channels, float* sum,
                                   float* product, const Mask& mask) {
  std::fill(sum, sum + channels, 0.0f);
  std::fill(product, product + channels, 0.0f);
  const std::int64_t pairs = channels <= kWideRow ? rows / 2 : 0;
  for (std::int64_t p = 0; p < pairs; ++p) {
    const float* x0 = x + 2 * p * channels;
    const float* x1 = x0 + channels;
    const float* g0 = dy + 2 * p * channels;
    const float* g1 = g0 + channels;
#pragma omp simd
    for (std::int64_t i = 0; i < channels; ++i) {
      const float m = mean[i];
      const float a = mask(x0[i], g0[i], i), b = mask(x1[i], g1[i], i);
      sum[i] += a + b;
      product[i] += a * (x0[i] - m) + b * (x1[i] - m);
    }
  }
  for (std::int64_t r = 2 * pairs; r < rows; ++r) {
    const float* x0 = x + r * channels;
    const float* g0 = dy + r * channels;
#pragma omp simd
    for (std::int64_t i = 0; i < channels; ++i) {
      const float a = mask(x0[i], g0[i], i);
      sum[i] += a;
      product[i] += a * (x0[i] - mean[i]);
    }
  }
}

template <typename Mask>
[[gnu::flatten]] void sums_of_plane(const float* x, const float* dy, float mean, std::int64_t n,
                                    float* sum, float* product, const Mask& mask,
                                    std::int64_t channel) {
  float s = 0.0f, p = 0.0f;
#pragma omp simd reduction(+ : s, p)
  for (std::int64_t i = 0; i < n; ++i) {
    const float a = mask(x[i], dy[i], channel);
    s += a;
    p += a * (x[i] - mean);
  }
  *sum = s;
  *product = p;
}

// Partial results of all blocks: two vectors of channels each.
inline std::size_t partial_bytes(const Channels& view) {
  return std::size_t(view.blocks() * view.channels) * 2 * sizeof(float);
}

inline void block_moments(const Channels& view, const float* x, float* partial) {
  const std::int64_t channels = view.channels;
  parallel_for(view.blocks(), view.grain(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      float* mean = partial + 2 * b * channels;
      if (view.inner == 1) {
        moments_of_rows(x + b * view.block_rows() * channels, view.rows_of(b), channels, mean,
                        mean + channels);
        continue;
      }
      for (std::int64_t c = 0; c < channels; ++c) {
        moments_of_plane(x + (b * channels + c) * view.inner, view.inner, mean + c,
                         mean + channels + c);
      }
    }
  });
}

template <typename Mask = All>
void block_sums(const Channels& view, const float* x, const float* dy, const float* mean,
                float* partial, const Mask& mask = {}) {
  const std::int64_t channels = view.channels;
  parallel_for(view.blocks(), view.grain(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      float* sum = partial + 2 * b * channels;
      if (view.inner == 1) {
        const std::int64_t at = b * view.block_rows() * channels;
        sums_of_rows(x + at, dy + at, mean, view.rows_of(b), channels, sum, sum + channels, mask);
        continue;
      }
      for (std::int64_t c = 0; c < channels; ++c) {
        const std::int64_t at = (b * channels + c) * view.inner;
        sums_of_plane(x + at, dy + at, mean[c], view.inner, sum + c, sum + channels + c, mask, c);
      }
    }
  });
}

constexpr std::int64_t kTile = 16;  // channels merged together, in double

// Merges the blocks' moments in order (Chan's formula).
inline void merge_moments(const Channels& view, const float* partial, float* mean, float* m2) {
  const std::int64_t channels = view.channels;
  for (std::int64_t c0 = 0; c0 < channels; c0 += kTile) {
    const std::int64_t width = std::min(kTile, channels - c0);
    std::array<double, kTile> m{}, s{};
    double n = 0;
    for (std::int64_t b = 0; b < view.blocks(); ++b) {
      const double add = double(view.rows_of(b) * view.inner);
      const double share = add / (n + add);
      const float* pm = partial + 2 * b * channels + c0;
      const float* ps = pm + channels;
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i) {
        const double delta = pm[i] - m[i];
        m[i] += delta * share;
        s[i] += ps[i] + delta * delta * n * share;
      }
      n += add;
    }
    for (std::int64_t i = 0; i < width; ++i) {
      mean[c0 + i] = float(m[i]);
      m2[c0 + i] = float(s[i]);
    }
  }
}

// Adds the blocks' pairs of sums in order.
inline void merge_sums(const Channels& view, const float* partial, float* sum, float* product) {
  const std::int64_t channels = view.channels;
  for (std::int64_t c0 = 0; c0 < channels; c0 += kTile) {
    const std::int64_t width = std::min(kTile, channels - c0);
    std::array<double, kTile> s{}, p{};
    for (std::int64_t b = 0; b < view.blocks(); ++b) {
      const float* ps = partial + 2 * b * channels + c0;
      const float* pp = ps + channels;
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i) {
        s[i] += ps[i];
        p[i] += pp[i];
      }
    }
    for (std::int64_t i = 0; i < width; ++i) {
      sum[c0 + i] = float(s[i]);
      product[c0 + i] = float(p[i]);
    }
  }
}

// y = a dy + b (x - m) + s with coefficients for each channel; one walk. Terms switched off by the
// template arguments are not read. y may be dy or x.
struct Coefficients {
  const float* a = nullptr;
  const float* b = nullptr;
  const float* m = nullptr;
  const float* s = nullptr;
};

template <bool kDy, bool kX>
inline float affine(float dy, float x, float a, float b, float m, float s) {
  float y = 0.0f;
  if constexpr (kX) y = b * (x - m) + s;
  if constexpr (kDy) y += a * dy;
  return y;
}

template <bool kDy, bool kX>
void map_rows(float* y, const float* dy, const float* x, std::int64_t rows, std::int64_t channels,
              const Coefficients& k) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t at = r * channels;
#pragma omp simd
    for (std::int64_t i = 0; i < channels; ++i) {
      const float g = kDy ? dy[at + i] : 0.0f, v = kX ? x[at + i] : 0.0f;
      y[at + i] = affine<kDy, kX>(g, v, kDy ? k.a[i] : 0.0f, kX ? k.b[i] : 0.0f, kX ? k.m[i] : 0.0f,
                                  kX ? k.s[i] : 0.0f);
    }
  }
}

template <bool kDy, bool kX>
void map_channels(const Channels& view, float* y, const float* dy, const float* x,
                  const Coefficients& k) {
  const std::int64_t channels = view.channels;
  parallel_for(view.blocks(), view.grain(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      if (view.inner == 1) {
        const std::int64_t at = b * view.block_rows() * channels;
        map_rows<kDy, kX>(y + at, dy + at, x + at, view.rows_of(b), channels, k);
        continue;
      }
      for (std::int64_t c = 0; c < channels; ++c) {
        const std::int64_t at = (b * channels + c) * view.inner;
        const float ka = kDy ? k.a[c] : 0.0f, kb = kX ? k.b[c] : 0.0f;
        const float km = kX ? k.m[c] : 0.0f, ks = kX ? k.s[c] : 0.0f;
#pragma omp simd
        for (std::int64_t i = at; i < at + view.inner; ++i) {
          y[i] = affine<kDy, kX>(kDy ? dy[i] : 0.0f, kX ? x[i] : 0.0f, ka, kb, km, ks);
        }
      }
    }
  });
}

}  // namespace mb::MB_ISA
