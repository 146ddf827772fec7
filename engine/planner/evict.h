// Offline eviction: replay an order, drop what is cheap to make again when memory runs out.
#pragma once

#include <limits>
#include <optional>

#include "timeline.h"

namespace mb::planner {

struct EvictRule {
  double exponent = 1;                                      // of the distance to the next read
  std::vector<float> weight;                                // of each tensor's cost; empty: 1
  double cutoff = std::numeric_limits<double>::infinity();  // give up at this cost
  std::int64_t most_work = std::numeric_limits<std::int64_t>::max();  // and after these steps
};

struct Evicted {
  std::optional<Runs> runs;  // none: the rule does not find a schedule that fits
  std::int64_t work = 0;     // steps taken: time without a clock, so that results repeat
};

// Runs of every task in `order` (each once, inputs first) and of what must be made again, with a
// peak of at most `budget`.
Evicted evict(const Graph& graph, const Runs& order, Bytes budget, const EvictRule& rule);

}  // namespace mb::planner
