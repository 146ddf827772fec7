// Non-maximum suppression: boxes in falling order of score against those kept so far, which lie in
// separate arrays of coordinates and are tested many at a time.
//
// The vector test multiplies instead of dividing and errs towards "may overlap"; what it finds is
// decided exactly, by the quotient, one by one.
#include <bit>

#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kStep = 64;  // kept boxes tested at a time

// Sorts like (score falling, index rising).
std::uint64_t sort_key(float score, std::int64_t index) {
  const auto bits = std::bit_cast<std::uint32_t>(score + 0.f);  // -0 becomes 0
  const std::uint32_t rising = bits >> 31 ? ~bits : bits | 0x80000000u;
  return std::uint64_t(~rising) << 32 | std::uint64_t(index);
}

struct Kept {
  float *x1, *y1, *x2, *y2, *area;
  std::int32_t* group;
  std::int64_t size = 0;

  Kept(char* memory, std::int64_t capacity) {
    auto* at = reinterpret_cast<float*>(memory);
    for (float** field : {&x1, &y1, &x2, &y2, &area}) {
      *field = at;
      at += capacity;
    }
    group = reinterpret_cast<std::int32_t*>(at);
  }

  void push(const float* box, float own, std::int32_t c) {
    x1[size] = box[0], y1[size] = box[1], x2[size] = box[2], y2[size] = box[3];
    area[size] = own;
    group[size++] = c;
  }

  bool exact(std::int64_t k, const float* box, float own, double threshold) const {
    const float w = std::max(0.f, std::min(x2[k], box[2]) - std::max(x1[k], box[0]));
    const float h = std::max(0.f, std::min(y2[k], box[3]) - std::max(y1[k], box[1]));
    const float inner = w * h;
    return inner > 0 && double(inner / (area[k] + own - inner)) > threshold;
  }

  // Is the box's overlap with a kept one of its class above the threshold?
  bool suppress(const float* box, float own, std::int32_t c, double threshold) const {
    const float bx1 = box[0], by1 = box[1], bx2 = box[2], by2 = box[3];
    const auto cautious = float(threshold * (1 - 1e-5));
    for (std::int64_t begin = 0; begin < size; begin += kStep) {
      const std::int64_t end = std::min(size, begin + kStep);
      std::int32_t hits = 0;
#pragma omp simd reduction(| : hits)
      for (std::int64_t k = begin; k < end; ++k) {
        const float w = std::max(0.f, std::min(x2[k], bx2) - std::max(x1[k], bx1));
        const float h = std::max(0.f, std::min(y2[k], by2) - std::max(y1[k], by1));
        const float inner = w * h;
        hits |=
            std::int32_t(inner > cautious * (area[k] + own - inner)) & std::int32_t(group[k] == c);
      }
      if (hits == 0) continue;
      for (std::int64_t k = begin; k < end; ++k) {
        if (group[k] == c && exact(k, box, own, threshold)) return true;
      }
    }
    return false;
  }
};

// For each image: R sort keys, then `rows` kept boxes of six numbers.
std::size_t image_bytes(const Call& call) {
  const std::size_t most = std::size_t(std::min(call.attrs.integer("rows"), call.in(0).dim(1)));
  return (std::size_t(call.in(0).dim(1)) * 8 + (most + 16) * 6 * 4 + 63) / 64 * 64;
}

std::size_t workspace_nms(const Call& call) {
  return std::size_t(call.in(0).dim(0)) * image_bytes(call);
}

Launch bind_nms(const Call& call) {
  const std::int64_t images = call.in(0).dim(0), size = call.in(0).dim(1);
  const std::int64_t rows = call.attrs.integer("rows");
  const double threshold = call.attrs.real("iou_threshold");
  const auto least = float(call.attrs.real("score_threshold"));
  const auto side = float(call.attrs.real("min_size"));
  const float *boxes = call.in(0).data<float>(), *scores = call.in(1).data<float>();
  const auto* classes = call.in(2).data<std::int32_t>();
  const auto* count = call.in(3).data<std::int32_t>();
  auto* indices = call.out(0).data<std::int32_t>();
  auto* kept_count = call.out(1).data<std::int32_t>();
  char* memory = static_cast<char*>(call.workspace.pointer);
  const std::size_t own_bytes = image_bytes(call);
  return [=](Stream&) {
    parallel_each(images, [&](std::int64_t n) {
      auto* keys = reinterpret_cast<std::uint64_t*>(memory + std::size_t(n) * own_bytes);
      Kept kept(reinterpret_cast<char*>(keys + size), std::min(rows, size) + 16);
      std::int64_t candidates = 0;
      for (std::int64_t i = 0; i < std::min<std::int64_t>(count[n], size); ++i) {
        const float* box = boxes + 4 * (n * size + i);
        const float score = scores[n * size + i];
        if (!(score > least && box[2] - box[0] >= side && box[3] - box[1] >= side)) continue;
        keys[candidates++] = sort_key(score, i);
      }
      std::sort(keys, keys + candidates);
      std::int32_t* to = indices + n * rows;
      for (std::int64_t k = 0; k < candidates && kept.size < rows; ++k) {
        const auto i = std::int64_t(keys[k] & 0xFFFFFFFFu);
        const float* box = boxes + 4 * (n * size + i);
        const float area = (box[2] - box[0]) * (box[3] - box[1]);
        const std::int32_t c = classes[n * size + i];
        if (kept.suppress(box, area, c, threshold)) continue;
        to[kept.size] = std::int32_t(i);
        kept.push(box, area, c);
      }
      std::fill(to + kept.size, to + rows, 0);
      kept_count[n] = std::int32_t(kept.size);
    });
  };
}

}  // namespace

MB_KERNEL("nms", Device::kCpu, bind_nms, workspace_nms)

}  // namespace mb::MB_ISA
