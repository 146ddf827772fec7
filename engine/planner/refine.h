// Improvement of a schedule under a hard budget.
#pragma once

#include "timeline.h"

namespace mb::planner {

// Leaves out runs whose outputs can stay resident from the run before, dearest first, while the
// peak stays within `budget`.
Runs fill_gaps(const Graph& graph, Runs runs, Bytes budget);

}  // namespace mb::planner
