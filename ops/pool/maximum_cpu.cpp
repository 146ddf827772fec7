// Max-pooling and its gradient. The inner loops run over channels; images in rows layout are seen
// as more images of one channel. Which pixels a window holds is worked out once, axis by axis.
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

// Along one axis: the elements of windows that meet a position, and where they lead.
struct Tap {
  std::int64_t element, at;
};
struct Axis {
  std::vector<std::int64_t> first{0};
  std::vector<Tap> taps;

  std::span<const Tap> of(std::int64_t i) const {
    return {taps.data() + first[i], std::size_t(first[i + 1] - first[i])};
  }
};

struct Window {
  std::int64_t size, stride, dilation, before;

  // Inputs that an output reads.
  Axis inputs(std::int64_t outputs, std::int64_t pixels) const {
    Axis axis;
    for (std::int64_t i = 0; i < outputs; ++i) {
      for (std::int64_t e = 0; e < size; ++e) {
        const std::int64_t at = i * stride - before + e * dilation;
        if (at >= 0 && at < pixels) axis.taps.push_back({e, at});
      }
      axis.first.push_back(std::int64_t(axis.taps.size()));
    }
    return axis;
  }

  // Outputs that read an input.
  Axis outputs(std::int64_t pixels, std::int64_t outputs) const {
    Axis axis;
    for (std::int64_t i = 0; i < pixels; ++i) {
      for (std::int64_t e = 0; e < size; ++e) {
        const std::int64_t ahead = i + before - e * dilation;
        if (ahead < 0 || ahead % stride != 0 || ahead / stride >= outputs) continue;
        axis.taps.push_back({e, ahead / stride});
      }
      axis.first.push_back(std::int64_t(axis.taps.size()));
    }
    return axis;
  }
};

struct Pooling {
  std::int64_t images, channels, height, width;  // of the larger side, x
  std::int64_t out_height, out_width;
  Window windows[2];
  Axis rows, columns;

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
      windows[axis] = {attrs.integers("window")[axis], attrs.integers("stride")[axis],
                       attrs.integers("dilation")[axis], attrs.integers("padding")[2 * axis]};
    }
  }
};

// --- forward -------------------------------------------------------------------------------------

// One output pixel, kWidth channels from `image` on; best values and places stay in registers.
template <int kWidth, typename Index>
void pool_lanes(const Pooling& p, const float* image, float* y, Index* index,
                std::span<const Tap> rows, std::span<const Tap> columns) {
  alignas(64) float best[kWidth];
  alignas(64) std::int32_t place[kWidth];
  for (int c = 0; c < kWidth; ++c) {
    best[c] = -std::numeric_limits<float>::infinity();
    place[c] = 0;
  }
  for (const Tap& row : rows) {
    for (const Tap& column : columns) {
      const float* x = image + (row.at * p.width + column.at) * p.channels;
      const auto number = std::int32_t(row.element * p.windows[1].size + column.element);
#pragma omp simd
      for (int c = 0; c < kWidth; ++c) {
        const bool better = (x[c] > best[c]) | (x[c] != x[c]);  // NaN wins
        best[c] = better ? x[c] : best[c];
        place[c] = better ? number : place[c];
      }
    }
  }
  for (int c = 0; c < kWidth; ++c) y[c] = best[c];
  for (int c = 0; c < kWidth; ++c) index[c] = Index(place[c]);
}

template <typename Index>
void pool_pixel(const Pooling& p, const float* image, float* y, Index* index,
                std::span<const Tap> rows, std::span<const Tap> columns) {
  std::int64_t c = 0;
  for (; c + 64 <= p.channels; c += 64) {
    pool_lanes<64>(p, image + c, y + c, index + c, rows, columns);
  }
  for (; c + 16 <= p.channels; c += 16) {
    pool_lanes<16>(p, image + c, y + c, index + c, rows, columns);
  }
  for (; c < p.channels; ++c) pool_lanes<1>(p, image + c, y + c, index + c, rows, columns);
}

template <typename Index>
Launch bind_forward(const Call& call) {
  Pooling made(call.attrs, call.in(0), call.out());
  made.rows = made.windows[0].inputs(made.out_height, made.height);
  made.columns = made.windows[1].inputs(made.out_width, made.width);
  const auto shared = std::make_shared<const Pooling>(std::move(made));
  const float* x = call.in(0).data<float>();
  float* y = call.out(0).data<float>();
  Index* index = call.out(1).data<Index>();
  return [=](Stream&) {
    const Pooling& p = *shared;
    const std::int64_t line = p.out_width * p.channels;
    const std::int64_t work = line * p.windows[0].size * p.windows[1].size;
    const std::int64_t grain = std::max<std::int64_t>(1, 16384 / (work + 1));
    parallel_for(p.images * p.out_height, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t item = begin; item < end; ++item) {
        const float* image = x + item / p.out_height * p.height * p.width * p.channels;
        const std::span<const Tap> rows = p.rows.of(item % p.out_height);
        for (std::int64_t column = 0; column < p.out_width; ++column) {
          const std::int64_t at = item * line + column * p.channels;
          pool_pixel(p, image, y + at, index + at, rows, p.columns.of(column));
        }
      }
    });
  };
}

// --- backward ------------------------------------------------------------------------------------

// dx at one pixel gathers from the outputs whose window holds it: no two threads write together.
template <int kWidth, typename Index>
void gather_lanes(const Pooling& p, const float* dy, const Index* index, float* dx,
                  std::span<const Tap> rows, std::span<const Tap> columns) {
  alignas(64) float total[kWidth] = {};
  for (const Tap& row : rows) {
    for (const Tap& column : columns) {
      const std::int64_t at = (row.at * p.out_width + column.at) * p.channels;
      const auto number = Index(row.element * p.windows[1].size + column.element);
      const float* from = dy + at;
      const Index* won = index + at;
#pragma omp simd
      for (int c = 0; c < kWidth; ++c) total[c] += won[c] == number ? from[c] : 0.f;
    }
  }
  for (int c = 0; c < kWidth; ++c) dx[c] = total[c];
}

template <typename Index>
void gather_pixel(const Pooling& p, const float* dy, const Index* index, float* dx,
                  std::span<const Tap> rows, std::span<const Tap> columns) {
  std::int64_t c = 0;
  for (; c + 64 <= p.channels; c += 64) {
    gather_lanes<64>(p, dy + c, index + c, dx + c, rows, columns);
  }
  for (; c + 16 <= p.channels; c += 16) {
    gather_lanes<16>(p, dy + c, index + c, dx + c, rows, columns);
  }
  for (; c < p.channels; ++c) gather_lanes<1>(p, dy + c, index + c, dx + c, rows, columns);
}

template <typename Index>
Launch bind_backward(const Call& call) {
  Pooling made(call.attrs, call.out(), call.in(0));
  made.rows = made.windows[0].outputs(made.height, made.out_height);
  made.columns = made.windows[1].outputs(made.width, made.out_width);
  const auto shared = std::make_shared<const Pooling>(std::move(made));
  const float* dy = call.in(0).data<float>();
  const Index* index = call.in(1).data<Index>();
  float* dx = call.out().data<float>();
  return [=](Stream&) {
    const Pooling& p = *shared;
    const std::int64_t line = p.width * p.channels;
    const std::int64_t grain = std::max<std::int64_t>(1, 16384 / (line + 1));
    parallel_for(p.images * p.height, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t item = begin; item < end; ++item) {
        const std::int64_t image = item / p.height * p.out_height * p.out_width * p.channels;
        const std::span<const Tap> rows = p.rows.of(item % p.height);
        for (std::int64_t column = 0; column < p.width; ++column) {
          gather_pixel(p, dy + image, index + image, dx + item * line + column * p.channels, rows,
                       p.columns.of(column));
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
