// Boxes of one image with their classes, and the overlap of two of them.
#pragma once

#include <algorithm>
#include <cstdint>

namespace mb::MB_ISA {

struct Box {
  float x1, y1, x2, y2, area;
  std::int32_t group;  // only boxes of one group are compared
};

inline Box box_of(float x1, float y1, float x2, float y2, std::int32_t group) {
  return {x1, y1, x2, y2, (x2 - x1) * (y2 - y1), group};
}

// Row i of boxes [R, 4]; `last`: 1 when the last pixel belongs to a box, else 0.
inline Box read_box(const float* boxes, const std::int32_t* classes, std::int64_t i, float last) {
  const float* at = boxes + 4 * i;
  return box_of(at[0], at[1], at[2] + last, at[3] + last, classes[i]);
}

// Intersection over union, 0 where the boxes do not meet or one is no box (NaN). The product is
// rounded to float before it is subtracted, at every instruction set: no fused multiply-add.
inline float overlap(const Box& a, const Box& b) {
  const float w = std::max(0.f, std::min(a.x2, b.x2) - std::max(a.x1, b.x1));
  const float h = std::max(0.f, std::min(a.y2, b.y2) - std::max(a.y1, b.y1));
  const float inner = float(double(w) * double(h));
  const float quotient = inner / (a.area + b.area - inner);
  return inner > 0 && quotient > 0 ? quotient : 0.f;
}

}  // namespace mb::MB_ISA
