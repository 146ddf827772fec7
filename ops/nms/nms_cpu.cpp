// Non-maximum suppression: boxes in falling order of score, a block of them at a time. A block is
// tested against all boxes kept so far, many at once and on all threads; then its boxes are decided
// one after the other, each that stays against the later ones of the block.
//
// The vector test multiplies instead of dividing. It tells apart "surely above the threshold",
// "surely not" and the rare cases between, which the quotient decides exactly, one by one.
#include <limits>
#include <optional>

#include "mb/kernel.h"
#include "mb/sort_keys.h"
#include "ops/nms/overlap.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kLanes = 16, kGroups = 8;  // boxes tested together; such groups in a block
constexpr std::int64_t kBlock = kLanes * kGroups;
constexpr std::int32_t kSure = 1, kMaybe = 2;
constexpr std::int64_t kMostShifted = 1000;  // boxes: torchvision compares more class by class

// Boxes side by side, coordinate by coordinate.
struct Lanes {
  alignas(64) float x1[kLanes], y1[kLanes], x2[kLanes], y2[kLanes], area[kLanes];
  alignas(64) std::int32_t group[kLanes];
};

struct Threshold {
  double exact;
  float sure, maybe;

  explicit Threshold(double value)
      : exact(value),
        sure(value > 0 ? float(value * (1 + 1e-5)) : std::numeric_limits<float>::infinity()),
        maybe(float(value * (1 - 1e-5))) {}

  bool suppresses(const Box& kept, const Box& box) const {
    return kept.group == box.group && double(overlap(kept, box)) > exact;
  }
};

// Which lanes overlap one of the boxes: kSure and kMaybe, added to `found`. Is one of them kMaybe?
bool overlaps(const Box* kept, std::int64_t count, const Lanes& b, const Threshold& threshold,
              std::int32_t* found) {
  const float high = threshold.sure, low = threshold.maybe;
  alignas(64) std::int32_t sure[kLanes] = {}, maybe[kLanes] = {};
  for (std::int64_t k = 0; k < count; ++k) {  // the lanes stay in registers
    const Box own = kept[k];
#pragma omp simd
    for (std::int64_t i = 0; i < kLanes; ++i) {
      const float w = std::max(std::min(own.x2, b.x2[i]) - std::max(own.x1, b.x1[i]), 0.f);
      const float h = std::max(std::min(own.y2, b.y2[i]) - std::max(own.y1, b.y1[i]), 0.f);
      const float inner = w * h;
      const float outer = own.area + b.area[i] - inner;
      const auto same = std::int32_t(own.group == b.group[i]);
      sure[i] |= std::int32_t(inner > high * outer) & same;
      maybe[i] |= std::int32_t(inner > low * outer) & same;
    }
  }
  std::int32_t open = 0;
#pragma omp simd reduction(| : open)
  for (std::int64_t i = 0; i < kLanes; ++i) {
    found[i] |= sure[i] * kSure | maybe[i] * kMaybe;
    open |= std::int32_t(found[i] == kMaybe);
  }
  return open != 0;
}

// The boxes of one image that stay.
struct Suppression {
  Threshold threshold;
  std::int64_t rows;
  Box* kept;
  std::int64_t size = 0;

  // Lanes of the block that a kept box suppresses: 0 or not.
  void against_kept(const Lanes* lanes, const Box* boxes, std::int64_t count,
                    std::int32_t* found) const {
    const std::int64_t groups = (count + kLanes - 1) / kLanes;
    const std::int64_t grain = std::max<std::int64_t>(1, 4096 / (size + 1));
    parallel_for(groups, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t g = begin; g < end; ++g) {
        if (!overlaps(kept, size, lanes[g], threshold, found + g * kLanes)) continue;
        for (std::int64_t i = g * kLanes; i < std::min(count, (g + 1) * kLanes); ++i) {
          if (found[i] == kMaybe) found[i] = any_suppresses(boxes[i]);
        }
      }
    });
  }

  std::int32_t any_suppresses(const Box& box) const {
    for (std::int64_t k = 0; k < size; ++k) {
      if (threshold.suppresses(kept[k], box)) return kSure;
    }
    return 0;
  }

  // Decides a block's boxes; writes the indices of those that stay.
  void block(const Box* boxes, const std::uint64_t* keys, std::int64_t count, std::int32_t* to) {
    Lanes lanes[kGroups];
    alignas(64) std::int32_t found[kBlock] = {};
    for (std::int64_t i = 0; i < kBlock; ++i) {
      const Box& box = boxes[std::min(i, count - 1)];
      Lanes& l = lanes[i / kLanes];
      const std::int64_t at = i % kLanes;
      l.x1[at] = box.x1, l.y1[at] = box.y1, l.x2[at] = box.x2, l.y2[at] = box.y2;
      l.area[at] = box.area, l.group[at] = box.group;
    }
    against_kept(lanes, boxes, count, found);
    for (std::int64_t i = 0; i < count && size < rows; ++i) {
      if (found[i] != 0) continue;
      to[size] = std::int32_t(index_of(keys[i]));
      kept[size++] = boxes[i];
      for (std::int64_t g = i / kLanes; g * kLanes < count; ++g) {
        if (!overlaps(boxes + i, 1, lanes[g], threshold, found + g * kLanes)) continue;
        for (std::int64_t j = g * kLanes; j < std::min(count, (g + 1) * kLanes); ++j) {
          if (found[j] == kMaybe) found[j] = threshold.suppresses(boxes[i], boxes[j]) ? kSure : 0;
        }
      }
    }
  }
};

struct Nms {
  Threshold threshold;
  std::int64_t size, rows;
  float least, side;
  bool shifts;  // torchvision's way: classes far apart instead of compared
  const float *boxes, *scores;
  const std::int32_t *classes, *count;
  std::int32_t *indices, *kept_count;
  char* memory;
  std::size_t own_bytes;

  // How far torchvision moves a class from the one before, where it does not compare classes.
  std::optional<float> spacing(std::int64_t n, const std::uint64_t* keys,
                               std::int64_t total) const {
    if (!shifts || total > kMostShifted) return std::nullopt;
    float largest = -std::numeric_limits<float>::infinity();
    for (std::int64_t k = 0; k < total; ++k) {
      const float* at = boxes + 4 * (n * size + index_of(keys[k]));
      largest = std::max({largest, at[0], at[1], at[2], at[3]});
    }
    return largest + 1.f;
  }

  Box box(std::int64_t n, std::int64_t i, std::optional<float> apart) const {
    if (!apart) return read_box(boxes + 4 * n * size, classes + n * size, i, 0.f);
    const float* at = boxes + 4 * (n * size + i);
    const float by = float(double(classes[n * size + i]) * double(*apart));  // rounded, not fused
    return box_of(at[0] + by, at[1] + by, at[2] + by, at[3] + by, 0);
  }

  // Sort keys of the boxes that take part; returns how many.
  std::int64_t candidates(std::int64_t n, std::uint64_t* keys) const {
    std::int64_t found = 0;
    for (std::int64_t i = 0; i < std::min<std::int64_t>(count[n], size); ++i) {
      const float* at = boxes + 4 * (n * size + i);
      const float score = scores[n * size + i];
      keys[found] = sort_key(~ordered(score), i);
      found += (score > least) & (at[2] - at[0] >= side) & (at[3] - at[1] >= side);
    }
    return found;
  }

  void image(std::int64_t n) const {
    auto* keys = reinterpret_cast<std::uint64_t*>(memory + std::size_t(n) * own_bytes);
    const std::int64_t total = candidates(n, keys);
    const std::optional<float> apart = spacing(n, keys, total);
    const std::uint64_t* sorted = sort_keys(keys, keys + size, total);
    Suppression kept{threshold, rows, reinterpret_cast<Box*>(keys + 2 * size)};
    std::int32_t* to = indices + n * rows;
    Box block[kBlock];
    for (std::int64_t k = 0; k < total && kept.size < rows; k += kBlock) {
      const std::int64_t here = std::min(kBlock, total - k);
      for (std::int64_t i = 0; i < here; ++i) block[i] = box(n, index_of(sorted[k + i]), apart);
      kept.block(block, sorted + k, here, to);
    }
    std::fill(to + kept.size, to + rows, 0);
    kept_count[n] = std::int32_t(kept.size);
  }
};

// For each image: its sort keys twice, then the boxes that stay.
std::size_t image_bytes(const Call& call) {
  const std::int64_t size = call.in(0).dim(1);
  const std::size_t most = std::size_t(std::min(call.attrs.integer("rows"), size));
  return (std::size_t(size) * 16 + most * sizeof(Box) + 63) / 64 * 64;
}

std::size_t workspace_nms(const Call& call) {
  return std::size_t(call.in(0).dim(0)) * image_bytes(call);
}

Launch bind_nms(const Call& call) {
  const Nms nms{Threshold(call.attrs.real("iou_threshold")),
                call.in(0).dim(1),
                call.attrs.integer("rows"),
                float(call.attrs.real("score_threshold")),
                float(call.attrs.real("min_size")),
                call.attrs.text("class_switch") == "torchvision",
                call.in(0).data<float>(),
                call.in(1).data<float>(),
                call.in(2).data<std::int32_t>(),
                call.in(3).data<std::int32_t>(),
                call.out(0).data<std::int32_t>(),
                call.out(1).data<std::int32_t>(),
                static_cast<char*>(call.workspace.pointer),
                image_bytes(call)};
  const std::int64_t images = call.in(0).dim(0);
  return [=](Stream&) {
    if (images >= num_threads())
      return parallel_each(images, [&](std::int64_t n) { nms.image(n); });
    for (std::int64_t n = 0; n < images; ++n) nms.image(n);  // a thread team within each
  };
}

}  // namespace

MB_KERNEL("nms", Device::kCpu, bind_nms, workspace_nms)

}  // namespace mb::MB_ISA
