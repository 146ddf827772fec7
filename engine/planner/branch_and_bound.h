// Exact search for a placement of rectangles below a given height.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "rectangles.h"

namespace mb::planner {

enum class Outcome { kSolved, kImpossible, kGaveUp };

// Finds offsets such that all rectangles lie in [0, capacity). `offsets` holds -1 for a rectangle
// that is to be placed, or the offset where one already lies and stays; it is written only when
// solved. `work` counts down by the missing rectangles of each node of the search tree, weighted
// by their durations; at 0 the search gives up, so a result depends on the input alone, never on
// the speed of the machine.
//
// After MiniMalloc (Moffitt, ASPLOS 2024): canonical placements, dominance, section inference,
// decomposition. See search.h for what each of them is here.
Outcome place_below(std::span<const Rectangle> rectangles, std::int64_t capacity,
                    std::vector<std::int64_t>& offsets, std::int64_t& work);

}  // namespace mb::planner
