// Matching without the matrix of overlaps: blocks of boxes against one true box at a time.
//
// A true box that lies outside of a block's bounds overlaps none of its boxes: neighbouring anchors
// share a block, so most pairs end there. Low-quality matches need every true box's largest overlap
// first; a second walk then visits only the blocks that reached it. Both walks call the same
// function, which keeps equal overlaps bit-equal.
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kBlock = 64;

struct Block {
  alignas(64) float x1[kBlock], y1[kBlock], x2[kBlock], y2[kBlock], area[kBlock];
  float low[2], high[2];  // bounds of all boxes: x, y

  // Can a box overlap one of these? A coordinate that is not a number never says no.
  bool meets(const float* box) const {
    return !((box[2] <= low[0]) | (box[0] >= high[0]) | (box[3] <= low[1]) | (box[1] >= high[1]));
  }
};

// Never inlined: a fused multiply-add across these borders would change the last bit of an overlap.
[[gnu::noinline]] void load(const float* boxes, std::int64_t n, Block& block) {
  for (std::int64_t i = 0; i < kBlock; ++i) {
    const float* box = boxes + 4 * (i < n ? i : 0);
    block.x1[i] = box[0];
    block.y1[i] = box[1];
    block.x2[i] = box[2];
    block.y2[i] = box[3];
  }
  for (std::int64_t i = 0; i < kBlock; ++i) {
    block.area[i] = (block.x2[i] - block.x1[i]) * (block.y2[i] - block.y1[i]);
  }
  const auto least = [](const float* x) {
    float found = x[0];
#pragma omp simd reduction(min : found)
    for (std::int64_t i = 0; i < kBlock; ++i) found = std::min(found, x[i]);
    return found;
  };
  const auto largest = [](const float* x) {
    float found = x[0];
#pragma omp simd reduction(max : found)
    for (std::int64_t i = 0; i < kBlock; ++i) found = std::max(found, x[i]);
    return found;
  };
  block.low[0] = least(block.x1), block.low[1] = least(block.y1);
  block.high[0] = largest(block.x2), block.high[1] = largest(block.y2);
}

[[gnu::noinline]] void areas_of(const float* boxes, std::int64_t n, float* areas) {
  for (std::int64_t g = 0; g < n; ++g) {
    const float* box = boxes + 4 * g;
    areas[g] = (box[2] - box[0]) * (box[3] - box[1]);
  }
}

[[gnu::noinline]] void overlaps(const Block& block, const float* box, float area, float* iou) {
  const float x1 = box[0], y1 = box[1], x2 = box[2], y2 = box[3];
#pragma omp simd
  for (std::int64_t i = 0; i < kBlock; ++i) {
    const float w = std::max(std::min(block.x2[i], x2) - std::max(block.x1[i], x1), 0.f);
    const float h = std::max(std::min(block.y2[i], y2) - std::max(block.y1[i], y1), 0.f);
    const float inner = w * h;
    const float ratio = inner / (area + block.area[i] - inner);
    iou[i] = inner > 0 ? ratio : 0.f;
  }
}

struct Match {
  const float *boxes, *truth;
  const std::int32_t *count, *box_count;
  std::int64_t images, size, most, box_stride;  // boxes an image, true boxes an image
  float high, low;
  bool low_quality;
  std::int32_t* matches;
  float* best;
  float *areas, *largest, *reached;  // [N, G], [N, G], [N, blocks, G]: largest overlaps

  std::int64_t blocks() const { return (size + kBlock - 1) / kBlock; }
  std::int64_t valid(std::int64_t n) const {
    return box_count == nullptr ? size : std::clamp<std::int64_t>(box_count[n], 0, size);
  }
  std::int64_t truths(std::int64_t n) const { return std::clamp<std::int64_t>(count[n], 0, most); }

  // Loads block b of image n; how many of its boxes are valid.
  std::int64_t load_block(std::int64_t n, std::int64_t b, Block& block) const {
    const std::int64_t begin = b * kBlock;
    const std::int64_t live = std::clamp<std::int64_t>(valid(n) - begin, 0, kBlock);
    if (live > 0) load(boxes + n * box_stride + 4 * begin, live, block);
    return live;
  }

  // Best match of every box of a block, and the largest overlap of every true box in it.
  void first_walk(std::int64_t n, std::int64_t b) const {
    const std::int64_t begin = b * kBlock, total = truths(n), here = std::min(kBlock, size - begin);
    float* tops = reached + (n * blocks() + b) * most;
    Block block;
    alignas(64) float iou[kBlock], value[kBlock] = {};
    alignas(64) std::int32_t index[kBlock] = {};
    const std::int64_t live = load_block(n, b, block);
    for (std::int64_t g = 0; g < total; ++g) {
      const float* box = truth + 4 * (n * most + g);
      float top = 0;
      if (live > 0 && block.meets(box)) {
        overlaps(block, box, areas[n * most + g], iou);
#pragma omp simd reduction(max : top)
        for (std::int64_t i = 0; i < kBlock; ++i) {
          const bool better = iou[i] > value[i];
          index[i] = better ? std::int32_t(g) : index[i];
          value[i] = better ? iou[i] : value[i];
          top = std::max(top, iou[i]);  // spare lanes repeat the block's first box
        }
      }
      if (low_quality) tops[g] = top;
    }
    for (std::int64_t i = 0; i < here; ++i) {
      const bool counts = i < live;
      best[n * size + begin + i] = counts ? value[i] : 0.f;
      matches[n * size + begin + i] = counts ? decide(index[i], value[i], total) : -2;
    }
  }

  std::int32_t decide(std::int32_t index, float value, std::int64_t total) const {
    if (total == 0 || value < low) return -1;
    return value >= high ? index : -2;
  }

  void merge(std::int64_t n) const {
    float* top = largest + n * most;
    std::fill(top, top + most, 0.f);
    for (std::int64_t b = 0; b < blocks(); ++b) {
      const float* tops = reached + (n * blocks() + b) * most;
#pragma omp simd
      for (std::int64_t g = 0; g < truths(n); ++g) top[g] = std::max(top[g], tops[g]);
    }
  }

  // Boxes that share a true box's largest overlap take back their own best match.
  void second_walk(std::int64_t n, std::int64_t b) const {
    const std::int64_t begin = b * kBlock, total = truths(n);
    const float *tops = reached + (n * blocks() + b) * most, *wanted = largest + n * most;
    std::int32_t reaches = 0;
#pragma omp simd reduction(| : reaches)
    for (std::int64_t g = 0; g < total; ++g) {
      reaches |= std::int32_t(tops[g] == wanted[g]) & std::int32_t(tops[g] > 0);
    }
    if (reaches == 0) return;
    Block block;
    alignas(64) float iou[kBlock], value[kBlock] = {};
    alignas(64) std::int32_t index[kBlock] = {}, chosen[kBlock] = {};
    const std::int64_t live = load_block(n, b, block);
    for (std::int64_t g = 0; g < total; ++g) {
      if (!(tops[g] > 0)) continue;
      overlaps(block, truth + 4 * (n * most + g), areas[n * most + g], iou);
      const float top = wanted[g];
#pragma omp simd
      for (std::int64_t i = 0; i < kBlock; ++i) {
        const bool better = iou[i] > value[i];
        index[i] = better ? std::int32_t(g) : index[i];
        value[i] = better ? iou[i] : value[i];
        chosen[i] |= std::int32_t(iou[i] == top);
      }
    }
    for (std::int64_t i = 0; i < live; ++i) {
      if (chosen[i] != 0) matches[n * size + begin + i] = index[i];
    }
  }

  void run() const {
    for (std::int64_t n = 0; n < images; ++n) {
      areas_of(truth + 4 * n * most, truths(n), areas + n * most);
    }
    const auto walk = [&](auto&& body) {
      const std::int64_t grain = std::max<std::int64_t>(1, 2048 / (most + 16));
      parallel_for(images * blocks(), grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) body(i / blocks(), i % blocks());
      });
    };
    walk([&](std::int64_t n, std::int64_t b) { first_walk(n, b); });
    if (!low_quality) return;
    for (std::int64_t n = 0; n < images; ++n) merge(n);
    walk([&](std::int64_t n, std::int64_t b) { second_walk(n, b); });
  }
};

// The numbers of `areas`, `largest` and `reached`.
std::size_t workspace_match(const Call& call) {
  const std::int64_t truths = call.in(1).dim(0) * call.in(1).dim(1);
  const bool low_quality = call.attrs.flag("allow_low_quality");
  const std::int64_t blocks = low_quality ? 1 + (call.in(0).dim(-2) + kBlock - 1) / kBlock : 0;
  return std::size_t(truths * (1 + blocks)) * sizeof(float);
}

Launch bind_match(const Call& call) {
  const std::int64_t images = call.in(1).dim(0), most = call.in(1).dim(1);
  const std::int64_t size = call.in(0).dim(-2);
  auto* memory = static_cast<float*>(call.workspace.pointer);
  const Match match{
      call.in(0).data<float>(),
      call.in(1).data<float>(),
      call.in(2).data<std::int32_t>(),
      call.inputs.size() > 3 ? call.in(3).data<std::int32_t>() : nullptr,
      images,
      size,
      most,
      call.in(0).rank == 3 ? 4 * size : 0,
      float(call.attrs.real("high")),
      float(call.attrs.real("low")),
      call.attrs.flag("allow_low_quality"),
      call.out(0).data<std::int32_t>(),
      call.out(1).data<float>(),
      memory,
      memory + images * most,
      memory + 2 * images * most,
  };
  return [match](Stream&) { match.run(); };
}

}  // namespace

MB_KERNEL("match_boxes", Device::kCpu, bind_match, workspace_match)

}  // namespace mb::MB_ISA
