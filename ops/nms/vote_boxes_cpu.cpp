// Box voting: each kept box becomes the mean of the boxes that it overlaps, weighted with scores.
#include "mb/kernel.h"
#include "ops/nms/overlap.h"

namespace mb::MB_ISA {
namespace {

enum class Rule { kId, kAvg, kIouAvg };

struct Set {
  std::int64_t size;
  const float *boxes, *scores;
  const std::int32_t *classes, *count;

  Set(const Call& call, int first)
      : size(call.in(first).dim(1)),
        boxes(call.in(first).data<float>()),
        scores(call.in(first + 1).data<float>()),
        classes(call.in(first + 2).data<std::int32_t>()),
        count(call.in(first + 3).data<std::int32_t>()) {}

  std::int64_t valid(std::int64_t n) const { return std::min<std::int64_t>(count[n], size); }
  Box box(std::int64_t n, std::int64_t i, float last) const {
    return read_box(boxes + 4 * n * size, classes + n * size, i, last);
  }
};

struct Vote {
  Set kept, given;
  float iou_threshold, score_threshold, last;
  Rule rule;
  float *voted, *rated;

  void row(std::int64_t at) const {
    const std::int64_t n = at / kept.size, d = at % kept.size;
    float* to = voted + 4 * at;
    if (d >= kept.valid(n)) {
      std::fill(to, to + 4, 0.f);
      rated[at] = 0.f;
      return;
    }
    std::copy_n(kept.boxes + 4 * at, 4, to);
    rated[at] = kept.scores[at];
    const Box own = kept.box(n, d, last);
    double sum[4] = {}, weights = 0, by_overlap = 0, overlaps = 0;
    std::int64_t voters = 0;
    for (std::int64_t i = 0; i < given.valid(n); ++i) {
      const float score = given.scores[n * given.size + i];
      if (given.classes[n * given.size + i] != own.group || !(score > score_threshold)) continue;
      const float iou = overlap(own, given.box(n, i, last));
      if (!(iou >= iou_threshold)) continue;
      const float* box = given.boxes + 4 * (n * given.size + i);
      for (int k = 0; k < 4; ++k) sum[k] += double(score) * double(box[k]);
      weights += double(score);
      by_overlap += double(score) * double(iou);
      overlaps += double(iou);
      ++voters;
    }
    if (voters == 0) return;
    for (int k = 0; k < 4; ++k) to[k] = float(sum[k] / weights);
    if (rule == Rule::kAvg) rated[at] = float(weights / double(voters));
    if (rule == Rule::kIouAvg) rated[at] = float(by_overlap / overlaps);
  }
};

Launch bind_vote_boxes(const Call& call) {
  const std::string& rule = call.attrs.text("score_rule");
  const Vote vote{Set(call, 0),
                  Set(call, 4),
                  float(call.attrs.real("iou_threshold")),
                  float(call.attrs.real("score_threshold")),
                  call.attrs.flag("plus_one") ? 1.f : 0.f,
                  rule == "avg"       ? Rule::kAvg
                  : rule == "iou_avg" ? Rule::kIouAvg
                                      : Rule::kId,
                  call.out(0).data<float>(),
                  call.out(1).data<float>()};
  const std::int64_t rows = call.in(0).dim(0) * call.in(0).dim(1);
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / (vote.given.size + 1));
  return [=](Stream&) {
    parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t at = begin; at < end; ++at) vote.row(at);
    });
  };
}

}  // namespace

MB_KERNEL("vote_boxes", Device::kCpu, bind_vote_boxes)

}  // namespace mb::MB_ISA
