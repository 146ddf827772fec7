// Gradient of Precise RoI Pooling for the boxes. A bin's mean is linear in its weights, so their
// derivatives by the box's ends are weights too: every pixel that a bin reads gives one product of
// channels with dy, which counts with four weights.
#include "ops/roi_pooling/precise.h"

namespace mb::MB_ISA {
namespace {

double hat(double distance) { return std::max(0.0, 1.0 - std::abs(distance)); }

// How the weights of one axis change with the box's start and end, in the places of its taps.
struct Slopes {
  float *by_start, *by_end;

  // The mean over a bin from `low` to `high` changes by (mean - hat(low)) / width with `low`, by
  // (hat(high) - mean) / width with `high`; both edges lie between the box's.
  void fill(const Region& region, int axis, std::int64_t bins, std::int64_t pixels,
            const Taps& taps) const {
    if (!has_length(region, axis)) return;
    const double per_width = double(bins) / region.length[axis];
    for (std::int64_t b = 0; b < bins; ++b) {
      const double low = Precise::edge(region, axis, bins, b);
      const double high = Precise::edge(region, axis, bins, b + 1);
      const double from = double(b) / double(bins), to = double(b + 1) / double(bins);
      std::int64_t at = b * taps.capacity;
      each_hat(low, high, pixels, [&](std::int64_t pixel, double integral) {
        const double mean = integral * per_width;
        const double by_low = (mean - hat(low - double(pixel))) * per_width;
        const double by_high = (hat(high - double(pixel)) - mean) * per_width;
        by_start[at] = float((1 - from) * by_low + (1 - to) * by_high);
        by_end[at++] = float(from * by_low + to * by_high);
      });
    }
  }
};

// Products of dy with up to 4 pixels, over channels.
template <int kPixels>
void products(float* sum, const float* const* x, const float* dy, std::int64_t channels) {
  const float *xa = x[0], *xb = x[kPixels > 1 ? 1 : 0], *xc = x[kPixels > 2 ? 2 : 0],
              *xd = x[kPixels > 3 ? 3 : 0];
  float a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
  for (std::int64_t i = 0; i < channels; ++i) {
    a += xa[i] * dy[i];
    if constexpr (kPixels > 1) b += xb[i] * dy[i];
    if constexpr (kPixels > 2) c += xc[i] * dy[i];
    if constexpr (kPixels > 3) d += xd[i] * dy[i];
  }
  sum[0] = a, sum[1] = b, sum[2] = c, sum[3] = d;
}

void products(float* sum, const float* const* x, const float* dy, std::int64_t pixels,
              std::int64_t channels) {
  switch (pixels) {
    case 1:
      return products<1>(sum, x, dy, channels);
    case 2:
      return products<2>(sum, x, dy, channels);
    case 3:
      return products<3>(sum, x, dy, channels);
    default:
      return products<4>(sum, x, dy, channels);
  }
}

// One worker's tables of both axes: y, x.
struct Tables {
  Taps taps[2];
  Slopes slopes[2];
};

struct BoxGradient {
  Precise method;
  TapStore store;
  Boxes boxes;
  std::vector<Tensor> features;
  std::int64_t bins[2], channels;  // y, x
  const float* dy;
  float* to;
  char* memory;

  BoxGradient(const Call& call, std::size_t levels)
      : method(call.attrs),
        store(method, call.attrs.integers("size").data(), call.inputs.subspan(1, levels)),
        boxes(call, 1 + levels),
        features(call.inputs.begin() + 1, call.inputs.begin() + 1 + levels),
        bins{call.in(0).dim(2), call.in(0).dim(3)},
        channels(call.in(0).dim(1)),
        dy(call.in(0).data<float>()),
        to(call.out().data<float>()),
        memory(static_cast<char*>(call.workspace.pointer)) {}

  std::size_t slots(int axis) const { return std::size_t(bins[axis] * store.capacity[axis]); }
  std::size_t own_bytes() const { return store.bytes() + (slots(0) + slots(1)) * 8; }

  Tables tables(std::int64_t worker) const {
    char* own = memory + std::size_t(worker) * own_bytes();
    auto* more = reinterpret_cast<float*>(own + store.bytes());
    float* last = more + 2 * slots(0);
    return {{store.taps(own, 0), store.taps(own, 1)},
            {{more, more + slots(0)}, {last, last + slots(1)}}};
  }

  // Adds one bin's products with its pixels into the gradient (x1, y1, x2, y2).
  void add_bin(double* gradient, const float* map, std::int64_t width, const float* upstream,
               const Tables& t, std::int64_t p, std::int64_t q) const {
    const Taps &rows = t.taps[0], &columns = t.taps[1];
    for (std::int64_t i = p * rows.capacity; i < p * rows.capacity + rows.count[p]; ++i) {
      const float* row = map + rows.index[i] * width * channels;
      const std::int64_t end = q * columns.capacity + columns.count[q];
      for (std::int64_t j = q * columns.capacity; j < end; j += 4) {
        const std::int64_t n = std::min<std::int64_t>(4, end - j);
        const float* source[4];
        float sum[4];
        for (std::int64_t k = 0; k < n; ++k) source[k] = row + columns.index[j + k] * channels;
        products(sum, source, upstream, n, channels);
        for (std::int64_t k = 0; k < n; ++k) {
          const double product = sum[k];
          gradient[0] += product * rows.weight[i] * t.slopes[1].by_start[j + k];
          gradient[1] += product * t.slopes[0].by_start[i] * columns.weight[j + k];
          gradient[2] += product * rows.weight[i] * t.slopes[1].by_end[j + k];
          gradient[3] += product * t.slopes[0].by_end[i] * columns.weight[j + k];
        }
      }
    }
  }

  void box(std::int64_t item, const Tables& t) const {
    double gradient[4] = {0, 0, 0, 0};
    const Region region = boxes.region(method, item);
    double scale = 0;
    if (region.level >= 0) {
      scale = boxes.pyramid.scales[region.level];
      const Tensor& f = features[region.level];
      for (int axis = 0; axis < 2; ++axis) {
        method.fill(region, axis, bins[axis], f.dim(2 + axis), t.taps[axis]);
        t.slopes[axis].fill(region, axis, bins[axis], f.dim(2 + axis), t.taps[axis]);
      }
      const float* map = f.data<float>() + item / boxes.per_image * f.dim(2) * f.dim(3) * channels;
      const float* upstream = dy + item * bins[0] * bins[1] * channels;
      for (std::int64_t p = 0; p < bins[0]; ++p) {
        for (std::int64_t q = 0; q < bins[1]; ++q, upstream += channels) {
          add_bin(gradient, map, f.dim(3), upstream, t, p, q);
        }
      }
    }
    for (int k = 0; k < 4; ++k) to[4 * item + k] = float(scale * gradient[k]);
  }

  void run() const {
    parallel_each(std::min(kWorkers, boxes.total()), [&](std::int64_t worker) {
      const Tables own = tables(worker);
      for (std::int64_t i = worker; i < boxes.total(); i += kWorkers) box(i, own);
    });
  }
};

std::size_t workspace_box_gradient(const Call& call) {
  return kWorkers * BoxGradient(call, call.attrs.reals("scales").size()).own_bytes();
}

Launch bind_box_gradient(const Call& call) {
  const std::size_t levels = call.attrs.reals("scales").size();
  require_channels_last(call.inputs.first(1 + levels));
  return [made = BoxGradient(call, levels)](Stream&) { made.run(); };
}

}  // namespace

MB_KERNEL("prroi_pool_box_grad", Device::kCpu, bind_box_gradient, workspace_box_gradient)

}  // namespace mb::MB_ISA
