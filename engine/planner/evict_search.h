// The best of many evictions: orders, exponents, hints from least cuts, then learnt weights.
#pragma once

#include "timeline.h"

namespace mb::planner {

// The cheapest schedule found within `budget` and about `work` steps; `start` (may be empty) is one
// that fits. Empty: none found. The result depends on the arguments only.
Runs evict_search(const Graph& graph, const std::vector<Runs>& orders, Bytes budget,
                  const Runs& start, std::int64_t work);

}  // namespace mb::planner
