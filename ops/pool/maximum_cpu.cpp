// Max-pooling and its gradient. The inner loops run over channels; images in rows layout are seen
// as more images of one channel.
#include <algorithm>
#include <cstring>
#include <limits>

#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kBlock = 64;  // channels whose best values and places stay in registers

struct Pooling {
  std::int64_t images, channels, height, width;  // of the larger side, x
  std::int64_t out_height, out_width;
  std::int64_t kernel[2], stride[2], dilation[2], before[2];

  Pooling(const Attrs& attrs, const Tensor& x, const Tensor& y)
      : images(x.dim(0)),
        channels(x.dim(1)),
        height(x.dim(2)),
        width(x.dim(3)),
        out_height(y.dim(2)),
        out_width(y.dim(3)) {
    if (x.layout == Layout::kRows) {
      images *= channels;
      channels = std::min<std::int64_t>(channels, 1);
    }
    for (std::size_t axis = 0; axis < 2; ++axis) {
      kernel[axis] = attrs.integers("window")[axis];
      stride[axis] = attrs.integers("stride")[axis];
      dilation[axis] = attrs.integers("dilation")[axis];
      before[axis] = attrs.integers("padding")[2 * axis];
    }
  }
};

// One output pixel, n <= kBlock channels from `image` on.
template <typename Index>
void pool_pixel(const Pooling& p, const float* image, float* y, Index* index, std::int64_t row,
                std::int64_t column, std::int64_t n) {
  float best[kBlock];
  std::int32_t place[kBlock];
  for (std::int64_t c = 0; c < n; ++c) {
    best[c] = -std::numeric_limits<float>::infinity();
    place[c] = 0;
  }
  for (std::int64_t a = 0; a < p.kernel[0]; ++a) {
    const std::int64_t i = row * p.stride[0] - p.before[0] + a * p.dilation[0];
    if (i < 0 || i >= p.height) continue;
    for (std::int64_t b = 0; b < p.kernel[1]; ++b) {
      const std::int64_t j = column * p.stride[1] - p.before[1] + b * p.dilation[1];
      if (j < 0 || j >= p.width) continue;
      const float* x = image + (i * p.width + j) * p.channels;
      const auto number = std::int32_t(a * p.kernel[1] + b);
#pragma omp simd
      for (std::int64_t c = 0; c < n; ++c) {
        const bool better = x[c] > best[c] || x[c] != x[c];  // NaN wins
        best[c] = better ? x[c] : best[c];
        place[c] = better ? number : place[c];
      }
    }
  }
  std::memcpy(y, best, std::size_t(n) * sizeof(float));
#pragma omp simd
  for (std::int64_t c = 0; c < n; ++c) index[c] = Index(place[c]);
}

template <typename Index>
Launch bind_forward(const Call& call) {
  const Pooling p(call.attrs, call.in(0), call.out());
  const float* x = call.in(0).data<float>();
  float* y = call.out(0).data<float>();
  Index* index = call.out(1).data<Index>();
  return [=](Stream&) {
    const std::int64_t line = p.out_width * p.channels;
    const std::int64_t work = line * p.kernel[0] * p.kernel[1];
    const std::int64_t grain = std::max<std::int64_t>(1, 16384 / (work + 1));
    parallel_for(p.images * p.out_height, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t item = begin; item < end; ++item) {
        const float* image = x + item / p.out_height * p.height * p.width * p.channels;
        for (std::int64_t column = 0; column < p.out_width; ++column) {
          const std::int64_t at = item * line + column * p.channels;
          for (std::int64_t c = 0; c < p.channels; c += kBlock) {
            pool_pixel(p, image + c, y + at + c, index + at + c, item % p.out_height, column,
                       std::min(kBlock, p.channels - c));
          }
        }
      }
    });
  };
}

// dx at one pixel gathers from the outputs whose window holds it: no two threads write together.
template <typename Index>
void gather_pixel(const Pooling& p, const float* dy, const Index* index, float* dx,
                  std::int64_t row, std::int64_t column) {
  std::fill(dx, dx + p.channels, 0.f);
  for (std::int64_t a = 0; a < p.kernel[0]; ++a) {
    const std::int64_t up = row + p.before[0] - a * p.dilation[0];
    if (up < 0 || up % p.stride[0] != 0 || up / p.stride[0] >= p.out_height) continue;
    for (std::int64_t b = 0; b < p.kernel[1]; ++b) {
      const std::int64_t left = column + p.before[1] - b * p.dilation[1];
      if (left < 0 || left % p.stride[1] != 0 || left / p.stride[1] >= p.out_width) continue;
      const std::int64_t at = (up / p.stride[0] * p.out_width + left / p.stride[1]) * p.channels;
      const auto number = Index(a * p.kernel[1] + b);
      const float* from = dy + at;
      const Index* won = index + at;
#pragma omp simd
      for (std::int64_t c = 0; c < p.channels; ++c) dx[c] += won[c] == number ? from[c] : 0.f;
    }
  }
}

template <typename Index>
Launch bind_backward(const Call& call) {
  const Pooling p(call.attrs, call.out(), call.in(0));
  const float* dy = call.in(0).data<float>();
  const Index* index = call.in(1).data<Index>();
  float* dx = call.out().data<float>();
  return [=](Stream&) {
    const std::int64_t line = p.width * p.channels;
    const std::int64_t grain = std::max<std::int64_t>(1, 16384 / (line + 1));
    parallel_for(p.images * p.height, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t item = begin; item < end; ++item) {
        const std::int64_t image = item / p.height * p.out_height * p.out_width * p.channels;
        for (std::int64_t column = 0; column < p.width; ++column) {
          gather_pixel(p, dy + image, index + image, dx + item * line + column * p.channels,
                       item % p.height, column);
        }
      }
    });
  };
}

Launch bind_max_pool(const Call& call) {
  const bool small = call.out(1).dtype == DType::kUint8;
  return small ? bind_forward<std::uint8_t>(call) : bind_forward<std::int32_t>(call);
}

Launch bind_max_pool_backward(const Call& call) {
  const bool small = call.in(1).dtype == DType::kUint8;
  return small ? bind_backward<std::uint8_t>(call) : bind_backward<std::int32_t>(call);
}

}  // namespace

MB_KERNEL("max_pool2d", Device::kCpu, bind_max_pool)
MB_KERNEL("max_pool2d_backward", Device::kCpu, bind_max_pool_backward)

}  // namespace mb::MB_ISA
