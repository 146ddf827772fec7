// Static storage allocation: the best placement that greedy attempts and searches find.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "rectangles.h"

namespace mb::planner {

struct Allocation {
  std::vector<std::int64_t> offsets;
  std::int64_t height = 0;
  bool optimal = false;  // no placement is lower
};

// Stops as soon as a placement is no higher than `wanted` or the most live bytes. Otherwise it
// searches until `work` is spent: a count of elementary steps, roughly 60 million in a second.
Allocation allocate(std::span<const Rectangle> rectangles, std::int64_t wanted, std::int64_t work);

}  // namespace mb::planner
