// Recomputation along a chain of blocks: a dynamic programme over ranges and memory.
#pragma once

#include "timeline.h"

namespace mb::planner {

// The best schedule found for `order` seen as a chain of blocks, with a peak of at most `budget`;
// empty when the graph is no chain or nothing fits. Memory is counted in at most `slots` units.
Runs plan_chain(const Graph& graph, const Runs& order, Bytes budget, int slots);

}  // namespace mb::planner
