// What a sequence of runs needs: lifetimes of tensors, live bytes, in-place takes.
#pragma once

#include <vector>

#include "graph.h"

namespace mb::planner {

// A schedule is the sequence of its runs. A read is served by the latest run of the tensor's maker:
// dropping a tensor after its last read before it is made again never raises the peak, so nothing
// else needs to be stored.
using Runs = std::vector<int>;

// A tensor's bytes are live at the runs `first` to `last`, both included.
struct Life {
  int tensor, first, last;
};

// At run `at`, `out` takes over the bytes of `in`.
struct Take {
  int at, out, in;
};

struct Timeline {
  std::vector<Life> lives;
  std::vector<Take> takes;
  std::vector<Bytes> live;  // bytes while each run is under way, base and workspace included
  Bytes peak = 0;
  double cost = 0;
};

// `runs` must be executable: every input of a run was made before it.
Timeline timeline(const Graph& graph, const Runs& runs);

// The same without runs that nobody needs.
Runs tidy(const Graph& graph, const Runs& runs);

double cost_of(const Graph& graph, const Runs& runs);
Bytes peak_of(const Graph& graph, const Runs& runs);

}  // namespace mb::planner
