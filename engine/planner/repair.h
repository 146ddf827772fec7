// Lowers a placement where it is too high and leaves the rest of it as it is.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "rectangles.h"

namespace mb::planner {

// Brings everything below `target`: window by window, what is live around a rectangle that is too
// high is placed anew by exact search; what lives much longer, or outside, are its obstacles. False
// when a window has no solution or `work` is spent; `offsets` are then still without overlaps.
bool repair(std::span<const Rectangle> rectangles, const Sections& sections, std::int64_t target,
            std::vector<std::int64_t>& offsets, std::int64_t& work);

}  // namespace mb::planner
