// Placement of rectangles one by one, none moved afterwards.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "rectangles.h"

namespace mb::planner {

enum class Fit {
  kLowest,    // the lowest gap that is free for the whole lifetime
  kTightest,  // the smallest such gap
};

// One attempt: in this order, with this fit. Those of `from_top` (empty: none) go to the highest
// gap below `ceiling` where there is one.
struct Attempt {
  std::vector<int> order;
  Fit fit;
  std::vector<bool> from_top;
  std::int64_t ceiling = 0;
};

// Attempt number `number` of kAttempts: 8 orders with both fits, and then two that place what is
// live at the peak from below and everything else from the top, in program order and by size.
// Sources: Pisarchyk & Lee 2020 (arXiv 2001.03288) for size and duration; MegEngine and TelaMalloc
// place by contention.
constexpr int kAttempts = 18;
Attempt attempt(int number, std::span<const Rectangle> rectangles);

// An offset for each rectangle. `work` counts down by a quarter of the rectangles that may be
// looked at for each one that is placed.
std::vector<std::int64_t> place(std::span<const Rectangle> rectangles, const Sections& sections,
                                const Attempt& attempt, std::int64_t& work);

}  // namespace mb::planner
