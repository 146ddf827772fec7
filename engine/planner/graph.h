// The planner's view of a `memplan-v1` graph: plain integers, tasks in program order.
#pragma once

#include <cstdint>
#include <vector>

namespace mb::planner {

using Bytes = std::int64_t;

// `out` may take over the bytes of `in`, which then is gone.
struct Permit {
  int out, in;
};

struct Task {
  double cost = 0;
  Bytes workspace = 0;
  std::vector<int> inputs, outputs;  // base tensors are left out: they are always there
  std::vector<Permit> permits;       // at most one for an output
  Bytes output_bytes = 0;
  Bytes base_relief = 0;  // what permits over base tensors may save: only bounds count with it
  bool backward = false;
  bool once = false;  // never runs a second time: what it makes stays until its last read
};

// Base tensors never appear in tasks; their bytes are in `base_bytes`.
struct Graph {
  std::vector<Bytes> bytes;
  std::vector<char> keep;
  std::vector<Task> tasks;
  std::vector<int> maker;               // of each tensor; -1: a base tensor
  std::vector<std::vector<int>> users;  // of each tensor, in program order
  Bytes base_bytes = 0;

  int tensor_count() const { return int(bytes.size()); }
  int task_count() const { return int(tasks.size()); }
  double cost() const;
  bool has_once() const;
};

}  // namespace mb::planner
