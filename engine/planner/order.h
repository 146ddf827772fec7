// Orders of the tasks, each run once, with a low peak.
#pragma once

#include "timeline.h"

namespace mb::planner {

enum class OrderRule { kProgram, kEarly, kLeastGrowth, kDepthFirst, kLate };

// An order by a greedy rule.
Runs order_by(const Graph& graph, OrderRule rule);

// Moves tasks near the peak within the room that their inputs and readers leave, while that lowers
// the peak; `tries` evaluations at most.
Runs lower_peak(const Graph& graph, const Runs& order, Bytes enough, int tries);

}  // namespace mb::planner
