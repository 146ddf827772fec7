// Soft non-maximum suppression: the best box is taken, the scores of the others of its class are
// lowered by their overlap with it, and so on. One sweep a taken box, on the boxes that take part.
#include <limits>

#include "mb/kernel.h"
#include "mb/math.h"
#include "ops/nms/overlap.h"

namespace mb::MB_ISA {
namespace {

constexpr float kOut = -std::numeric_limits<float>::infinity();  // the score of a box that is out

struct SoftNms {
  std::int64_t size, rows;
  bool linear;
  float iou_threshold, sigma, least, score_threshold, side, last;
  const float *boxes, *scores;
  const std::int32_t *classes, *count;
  std::int32_t* indices;
  float* lowered;
  std::int32_t* found;
  char* memory;
  std::size_t own_bytes;

  float factor(float iou) const {
    if (linear) return iou > iou_threshold ? 1.f - iou : 1.f;
    return fast_exp(-(iou * iou) / sigma);
  }

  // The boxes that take part, their scores and indices, in rising order of the index.
  std::int64_t candidates(std::int64_t n, Box* box, float* left, std::int32_t* index) const {
    std::int64_t total = 0;
    for (std::int64_t i = 0; i < std::min<std::int64_t>(count[n], size); ++i) {
      const float* at = boxes + 4 * (n * size + i);
      const float score = scores[n * size + i];
      if (!(score > score_threshold && score >= least)) continue;
      if (!(at[2] - at[0] >= side && at[3] - at[1] >= side)) continue;
      box[total] = read_box(boxes + 4 * n * size, classes + n * size, i, last);
      left[total] = score;
      index[total++] = std::int32_t(i);
    }
    return total;
  }

  void image(std::int64_t n) const {
    char* own = memory + std::size_t(n) * own_bytes;
    auto* box = reinterpret_cast<Box*>(own);
    auto* left = reinterpret_cast<float*>(box + size);
    auto* index = reinterpret_cast<std::int32_t*>(left + size);
    const std::int64_t total = candidates(n, box, left, index);
    std::int32_t* to = indices + n * rows;
    float* value = lowered + n * rows;
    std::int64_t taken = 0;
    while (taken < rows) {
      const std::int64_t best = std::max_element(left, left + total) - left;  // the first of equals
      if (best == total || left[best] == kOut) break;
      to[taken] = index[best];
      value[taken++] = left[best];
      left[best] = kOut;
      for (std::int64_t i = 0; i < total; ++i) {
        if (box[i].group != box[best].group || left[i] == kOut) continue;
        left[i] *= factor(overlap(box[best], box[i]));
        if (left[i] < least) left[i] = kOut;
      }
    }
    found[n] = std::int32_t(taken);
    std::fill(to + taken, to + rows, 0);
    std::fill(value + taken, value + rows, 0.f);
  }
};

std::size_t image_bytes(const Call& call) {
  const std::size_t each = sizeof(Box) + sizeof(float) + sizeof(std::int32_t);
  return (std::size_t(call.in(0).dim(1)) * each + 63) / 64 * 64;
}

std::size_t workspace_soft_nms(const Call& call) {
  return std::size_t(call.in(0).dim(0)) * image_bytes(call);
}

Launch bind_soft_nms(const Call& call) {
  const SoftNms nms{call.in(0).dim(1),
                    call.attrs.integer("rows"),
                    call.attrs.text("decay") == "linear",
                    float(call.attrs.real("iou_threshold")),
                    float(call.attrs.real("sigma")),
                    float(call.attrs.real("least")),
                    float(call.attrs.real("score_threshold")),
                    float(call.attrs.real("min_size")),
                    call.attrs.flag("plus_one") ? 1.f : 0.f,
                    call.in(0).data<float>(),
                    call.in(1).data<float>(),
                    call.in(2).data<std::int32_t>(),
                    call.in(3).data<std::int32_t>(),
                    call.out(0).data<std::int32_t>(),
                    call.out(1).data<float>(),
                    call.out(2).data<std::int32_t>(),
                    static_cast<char*>(call.workspace.pointer),
                    image_bytes(call)};
  const std::int64_t images = call.in(0).dim(0);
  return [=](Stream&) { parallel_each(images, [&](std::int64_t n) { nms.image(n); }); };
}

}  // namespace

MB_KERNEL("soft_nms", Device::kCpu, bind_soft_nms, workspace_soft_nms)

}  // namespace mb::MB_ISA
