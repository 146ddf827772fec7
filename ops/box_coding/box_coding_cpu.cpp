// Boxes as offsets from other boxes, and back.
#include "mb/kernel.h"
#include "mb/math.h"

namespace mb::MB_ISA {
namespace {

// Row i of [..., 4] belongs to box (i / inner) % total.
struct Rows {
  std::int64_t count, inner, total;

  Rows(const Tensor& rows, const Tensor& boxes)
      : count(rows.count() / 4), inner(1), total(boxes.count() / 4) {
    if (boxes.rank == rows.rank - 1 && boxes.rank >= 2) {
      bool leading = true;  // the last but one axis is missing
      for (int axis = 0; axis + 1 < boxes.rank; ++axis) {
        leading = leading && boxes.dim(axis) == rows.dim(axis);
      }
      bool trailing = true;  // the first axis is missing
      for (int axis = 0; axis < boxes.rank; ++axis) {
        trailing = trailing && boxes.dim(axis) == rows.dim(axis + 1);
      }
      if (leading && !trailing) inner = rows.dim(-2);
    }
  }
};

constexpr std::int64_t kRun = 64;  // rows in work together, coordinate by coordinate

struct Quads {
  alignas(64) float at[4][kRun];

  void load(const float* rows, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      for (int k = 0; k < 4; ++k) at[k][i] = rows[4 * i + k];
    }
  }
  void store(float* rows, std::int64_t n) const {
    for (std::int64_t i = 0; i < n; ++i) {
      for (int k = 0; k < 4; ++k) rows[4 * i + k] = at[k][i];
    }
  }
};

// Boxes as corner and sides, for the rows [first, first + n).
struct Bases {
  alignas(64) float x[kRun], y[kRun], w[kRun], h[kRun];

  void load(const float* boxes, const Rows& rows, std::int64_t first, std::int64_t n) {
    std::int64_t box = first / rows.inner % rows.total, repeated = first % rows.inner;
    for (std::int64_t i = 0; i < n; ++i) {
      const float* b = boxes + 4 * box;
      x[i] = b[0], y[i] = b[1], w[i] = b[2] - b[0], h[i] = b[3] - b[1];
      if (++repeated < rows.inner) continue;
      repeated = 0;
      if (++box == rows.total) box = 0;
    }
  }
};

// Calls body(first, n) for runs of at most kRun rows.
template <typename Body>
void each_run(const Rows& rows, const Body& body) {
  parallel_for(rows.count, 2048, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; i += kRun) body(i, std::min(kRun, end - i));
  });
}

struct Weights {
  float x, y, w, h;
  explicit Weights(const Attrs& attrs) {
    const std::vector<double> values = attrs.reals("weights");
    x = float(values[0]), y = float(values[1]), w = float(values[2]), h = float(values[3]);
  }
};

Launch bind_encode(const Call& call) {
  const Rows rows(call.in(0), call.in(1));
  const Weights weights(call.attrs);
  const float *target = call.in(0).data<float>(), *boxes = call.in(1).data<float>();
  float* y = call.out().data<float>();
  return [=](Stream&) {
    each_run(rows, [=](std::int64_t first, std::int64_t n) {
      Bases b;
      Quads t;
      b.load(boxes, rows, first, n);
      t.load(target + 4 * first, n);
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i) {
        const float w = b.w[i], h = b.h[i];
        const float tw = t.at[2][i] - t.at[0][i], th = t.at[3][i] - t.at[1][i];
        const float dx = weights.x * ((t.at[0][i] + 0.5f * tw) - (b.x[i] + 0.5f * w)) / w;
        const float dy = weights.y * ((t.at[1][i] + 0.5f * th) - (b.y[i] + 0.5f * h)) / h;
        const float dw = weights.w * fast_log(tw / w), dh = weights.h * fast_log(th / h);
        const int real = int(w > 0) & int(h > 0) & int(tw > 0) & int(th > 0);
        t.at[0][i] = real != 0 ? dx : 0.f;
        t.at[1][i] = real != 0 ? dy : 0.f;
        t.at[2][i] = real != 0 ? dw : 0.f;
        t.at[3][i] = real != 0 ? dh : 0.f;
      }
      t.store(y + 4 * first, n);
    });
  };
}

Launch bind_decode(const Call& call) {
  const Rows rows(call.in(0), call.in(1));
  const Weights weights(call.attrs);
  const auto clamp = float(call.attrs.real("clamp"));
  const float *offsets = call.in(0).data<float>(), *boxes = call.in(1).data<float>();
  float* y = call.out().data<float>();
  return [=](Stream&) {
    each_run(rows, [=](std::int64_t first, std::int64_t n) {
      Bases b;
      Quads d;
      b.load(boxes, rows, first, n);
      d.load(offsets + 4 * first, n);
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i) {
        const float w = b.w[i], h = b.h[i];
        const float cx = d.at[0][i] / weights.x * w + (b.x[i] + 0.5f * w);
        const float cy = d.at[1][i] / weights.y * h + (b.y[i] + 0.5f * h);
        const float half_w = 0.5f * fast_exp(std::min(d.at[2][i] / weights.w, clamp)) * w;
        const float half_h = 0.5f * fast_exp(std::min(d.at[3][i] / weights.h, clamp)) * h;
        d.at[0][i] = cx - half_w;
        d.at[1][i] = cy - half_h;
        d.at[2][i] = cx + half_w;
        d.at[3][i] = cy + half_h;
      }
      d.store(y + 4 * first, n);
    });
  };
}

Launch bind_decode_backward(const Call& call) {
  const Rows rows(call.in(1), call.in(2));
  const Weights weights(call.attrs);
  const auto clamp = float(call.attrs.real("clamp"));
  const float *dy = call.in(0).data<float>(), *offsets = call.in(1).data<float>();
  const float* boxes = call.in(2).data<float>();
  float* y = call.out().data<float>();
  return [=](Stream&) {
    each_run(rows, [=](std::int64_t first, std::int64_t n) {
      Bases b;
      Quads d, g;
      b.load(boxes, rows, first, n);
      d.load(offsets + 4 * first, n);
      g.load(dy + 4 * first, n);
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i) {
        const float dw = d.at[2][i] / weights.w, dh = d.at[3][i] / weights.h;
        const float grow_w = 0.5f * (g.at[2][i] - g.at[0][i]) * fast_exp(dw) * b.w[i] / weights.w;
        const float grow_h = 0.5f * (g.at[3][i] - g.at[1][i]) * fast_exp(dh) * b.h[i] / weights.h;
        d.at[0][i] = (g.at[0][i] + g.at[2][i]) * b.w[i] / weights.x;
        d.at[1][i] = (g.at[1][i] + g.at[3][i]) * b.h[i] / weights.y;
        d.at[2][i] = dw <= clamp ? grow_w : 0.f;
        d.at[3][i] = dh <= clamp ? grow_h : 0.f;
      }
      d.store(y + 4 * first, n);
    });
  };
}

Launch bind_clip(const Call& call) {
  const std::int64_t images = call.in(0).dim(0);
  const std::int64_t per_image = images == 0 ? 0 : call.in(0).count() / 4 / images;
  const float* boxes = call.in(0).data<float>();
  const std::int32_t* sizes = call.in(1).data<std::int32_t>();
  float* y = call.out().data<float>();
  return [=](Stream&) {
    parallel_for(images * per_image, 8192, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t n = i / per_image;
        const float limit[2] = {float(sizes[2 * n + 1]), float(sizes[2 * n])};
        for (int k = 0; k < 4; ++k) {
          y[4 * i + k] = std::min(std::max(boxes[4 * i + k], 0.f), limit[k & 1]);
        }
      }
    });
  };
}

}  // namespace

MB_KERNEL("encode_boxes", Device::kCpu, bind_encode)
MB_KERNEL("decode_boxes", Device::kCpu, bind_decode)
MB_KERNEL("decode_boxes_backward", Device::kCpu, bind_decode_backward)
MB_KERNEL("clip_boxes", Device::kCpu, bind_clip)

}  // namespace mb::MB_ISA
