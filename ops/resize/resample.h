// Separable linear resampling over tables of taps: resizing, average pooling and their adjoints.
//
// Every output pixel gathers its inputs, so threads never write to the same place. The inner loops
// run over channels; images in rows layout are seen as more images of one channel.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "mb/kernel.h"

namespace mb::MB_ISA {

// Along one axis: output i is the sum of weights[first[i] + k] * x[start[i] + k].
struct Taps {
  std::vector<std::int64_t> start, first;
  std::vector<float> weights;

  Taps(const Attrs& attrs, const std::string& name) : start(attrs.integers(name + "_starts")) {
    const std::vector<double> given = attrs.reals(name + "_weights");
    weights.assign(given.begin(), given.end());
    first = {0};
    for (std::int64_t count : attrs.integers(name + "_counts")) {
      first.push_back(first.back() + count);
    }
  }
  std::int64_t size() const { return std::int64_t(start.size()); }
  std::int64_t count(std::int64_t i) const { return first[i + 1] - first[i]; }
  const float* at(std::int64_t i) const { return weights.data() + first[i]; }
};

struct Resampling {
  Taps rows, columns;
  std::int64_t images = 0, channels = 0, width = 0, pixels = 0;  // of the input
};

// y (+)= w[0] * p[0] + ... + w[K-1] * p[K-1]
template <int K>
void weighted_sum(float* y, const float* const* p, const float* w, std::int64_t n, bool add) {
  if (add) {
#pragma omp simd
    for (std::int64_t c = 0; c < n; ++c) {
      float sum = w[0] * p[0][c];
      for (int k = 1; k < K; ++k) sum += w[k] * p[k][c];
      y[c] += sum;
    }
  } else {
#pragma omp simd
    for (std::int64_t c = 0; c < n; ++c) {
      float sum = w[0] * p[0][c];
      for (int k = 1; k < K; ++k) sum += w[k] * p[k][c];
      y[c] = sum;
    }
  }
}

inline void weighted_sum(float* y, const float* const* p, const float* w, int k, std::int64_t n,
                         bool add) {
  switch (k) {
    case 1:
      return weighted_sum<1>(y, p, w, n, add);
    case 2:
      return weighted_sum<2>(y, p, w, n, add);
    case 3:
      return weighted_sum<3>(y, p, w, n, add);
    default:
      return weighted_sum<4>(y, p, w, n, add);
  }
}

// One output pixel's channels [0, n), n <= kBlock; x is the image's first pixel at that channel.
constexpr std::int64_t kBlock = 512;
inline void resample_pixel(const Resampling& r, const float* x, float* y, std::int64_t row,
                           std::int64_t column, std::int64_t n) {
  const std::int64_t height = r.rows.count(row), width = r.columns.count(column);
  const float *wy = r.rows.at(row), *wx = r.columns.at(column);
  const float* corner = x + (r.rows.start[row] * r.width + r.columns.start[column]) * r.channels;
  if (height * width == 0) {  // an input that no output had read
    std::memset(y, 0, std::size_t(n) * sizeof(float));
    return;
  }
  if (height * width == 1 && wy[0] * wx[0] == 1.f) {
    std::memcpy(y, corner, std::size_t(n) * sizeof(float));
    return;
  }
  // Large windows are summed row by row, so that errors grow with the rows and not with the pixels.
  const bool split = height > 1 && width > 8;
  float part[kBlock];
  const float* pointers[4];
  float weights[4];
  int held = 0;
  bool add = false, add_part = false;
  for (std::int64_t a = 0; a < height; ++a) {
    add_part = false;
    for (std::int64_t b = 0; b < width; ++b) {
      pointers[held] = corner + (a * r.width + b) * r.channels;
      weights[held] = wy[a] * wx[b];
      const bool last = b + 1 == width && (split || a + 1 == height);
      if (++held < 4 && !last) continue;
      weighted_sum(split ? part : y, pointers, weights, held, n, split ? add_part : add);
      held = 0;
      (split ? add_part : add) = true;
    }
    if (split) {
      const float* parts[1] = {part};
      const float one = 1.f;
      weighted_sum<1>(y, parts, &one, n, add);
      add = true;
    }
  }
}

inline Launch bind_resample(const Call& call) {
  const Tensor &from = call.in(0), &to = call.out();
  Resampling made{Taps(call.attrs, "row"), Taps(call.attrs, "column")};
  made.images = from.dim(0);
  made.channels = from.dim(1);
  made.width = from.dim(3);
  made.pixels = from.dim(2) * from.dim(3);
  if (from.layout == Layout::kRows) {
    made.images *= made.channels;
    made.channels = std::min<std::int64_t>(made.channels, 1);
  }
  const auto shared = std::make_shared<const Resampling>(std::move(made));
  const float* x = from.data<float>();
  float* y = to.data<float>();
  return [=](Stream&) {
    const Resampling& r = *shared;
    const std::int64_t height = r.rows.size(), width = r.columns.size();
    // Whole pixels where there are many rows; small blocks so that a global average uses all
    // threads.
    const std::int64_t block = r.images * height >= 64 ? kBlock : 64;
    const std::int64_t blocks = (r.channels + block - 1) / block;
    const std::int64_t reads = r.pixels * r.channels / height + width * r.channels;
    const std::int64_t grain = std::max<std::int64_t>(1, 16384 * blocks / (reads + 1));
    parallel_for(r.images * height * blocks, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t item = begin; item < end; ++item) {
        const std::int64_t line = item / blocks, row = line % height;
        const std::int64_t c = item % blocks * block;
        const std::int64_t n = std::min(block, r.channels - c);
        const float* image = x + line / height * r.pixels * r.channels + c;
        float* out = y + line * width * r.channels + c;
        for (std::int64_t column = 0; column < width; ++column) {
          resample_pixel(r, image, out + column * r.channels, row, column, n);
        }
      }
    });
  };
}

}  // namespace mb::MB_ISA
