// Boxes as offsets from other boxes, and back.
#include <cmath>

#include "mb/kernel.h"

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

template <typename Body>
void each_row(const Rows& rows, const Body& body) {
  parallel_for(rows.count, 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) body(i, (i / rows.inner) % rows.total);
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
    each_row(rows, [=](std::int64_t i, std::int64_t box) {
      const float *t = target + 4 * i, *b = boxes + 4 * box;
      float* out = y + 4 * i;
      const float w = b[2] - b[0], h = b[3] - b[1], tw = t[2] - t[0], th = t[3] - t[1];
      if (!(w > 0 && h > 0 && tw > 0 && th > 0)) {
        std::fill(out, out + 4, 0.f);
        return;
      }
      out[0] = weights.x * ((t[0] + 0.5f * tw) - (b[0] + 0.5f * w)) / w;
      out[1] = weights.y * ((t[1] + 0.5f * th) - (b[1] + 0.5f * h)) / h;
      out[2] = weights.w * std::log(tw / w);
      out[3] = weights.h * std::log(th / h);
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
    each_row(rows, [=](std::int64_t i, std::int64_t box) {
      const float *d = offsets + 4 * i, *b = boxes + 4 * box;
      float* out = y + 4 * i;
      const float w = b[2] - b[0], h = b[3] - b[1];
      const float cx = d[0] / weights.x * w + (b[0] + 0.5f * w);
      const float cy = d[1] / weights.y * h + (b[1] + 0.5f * h);
      const float half_w = 0.5f * std::exp(std::min(d[2] / weights.w, clamp)) * w;
      const float half_h = 0.5f * std::exp(std::min(d[3] / weights.h, clamp)) * h;
      out[0] = cx - half_w;
      out[1] = cy - half_h;
      out[2] = cx + half_w;
      out[3] = cy + half_h;
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
    each_row(rows, [=](std::int64_t i, std::int64_t box) {
      const float *g = dy + 4 * i, *d = offsets + 4 * i, *b = boxes + 4 * box;
      float* out = y + 4 * i;
      const float w = b[2] - b[0], h = b[3] - b[1];
      const float dw = d[2] / weights.w, dh = d[3] / weights.h;
      out[0] = (g[0] + g[2]) * w / weights.x;
      out[1] = (g[1] + g[3]) * h / weights.y;
      out[2] = dw <= clamp ? 0.5f * (g[2] - g[0]) * std::exp(dw) * w / weights.w : 0.f;
      out[3] = dh <= clamp ? 0.5f * (g[3] - g[1]) * std::exp(dh) * h / weights.h : 0.f;
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
