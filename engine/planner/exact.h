// The least cost under a budget, proved: shortest path over sets of resident tensors.
#pragma once

#include <optional>

#include "timeline.h"

namespace mb::planner {

enum class Proof { kOptimal, kInfeasible, kGaveUp };

struct Exact {
  Proof proof = Proof::kGaveUp;
  Runs runs;              // when optimal
  double cost_bound = 0;  // no schedule costs less, even when the search gave up
};

// For graphs of at most 64 tensors and tasks that run only once together; gives up after
// `max_states`. Plans that cost `cutoff` or more are not looked for (kInfeasible then means: none
// below it).
Exact exact(const Graph& graph, Bytes budget, std::int64_t max_states, double cutoff);

}  // namespace mb::planner
