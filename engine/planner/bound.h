// Lower bounds that hold for every order of the tasks and every recomputation.
#pragma once

#include <optional>

#include "graph.h"

namespace mb::planner {

struct Bound {
  double cost = 0;       // no schedule costs less
  bool feasible = true;  // false: no schedule fits at all
  int task = -1;         // the one at which memory forces this
};

// Bytes that `task` needs to run at all: base, inputs, outputs, workspace, less permits.
Bytes working_set(const Graph& graph, int task);

struct Floor {
  Bytes bytes;
  int task;  // -1: the tensors to keep
};

// The most of working_set over the tasks: no schedule has a lower peak.
Floor least_peak_bound(const Graph& graph);

// The slice bound at the most promising tasks. `price_steps` least cuts for each at most.
Bound slice_bound(const Graph& graph, Bytes budget, int slices, int price_steps);

// Which tensors a least cut at `task` keeps when a byte costs `price`; the others are made again.
std::vector<char> slice_cut(const Graph& graph, int task, double price);

// The task whose slice needs the most bytes when nothing is made again.
int fullest_slice(const Graph& graph);

}  // namespace mb::planner
