// Maximum flow and least cut on integers.
#pragma once

#include <cstdint>
#include <vector>

namespace mb::planner {

// Dinic's algorithm (1970). Nodes 0 to n-1; capacities may be kEndless.
class FlowNetwork {
 public:
  static constexpr std::int64_t kEndless = std::int64_t(1) << 60;

  explicit FlowNetwork(int nodes) : heads_(nodes, -1) {}

  // Returns the edge's number, for `set_capacity`.
  int add_edge(int from, int to, std::int64_t capacity);
  void set_capacity(int edge, std::int64_t capacity) { capacity_[edge] = capacity; }

  // From the capacities as they were set; the value is at least kEndless when no cut is finite.
  std::int64_t maximum_flow(int source, int sink);

  // After maximum_flow: on the source's side of the least cut.
  bool on_source_side(int node) const { return level_[node] >= 0; }

 private:
  struct Edge {
    int to, next;
    std::int64_t room;
  };

  bool search_levels(int source, int sink);
  std::int64_t push_path(int source, int sink);

  std::vector<int> heads_, level_, cursor_, path_, queue_;
  std::vector<Edge> edges_;
  std::vector<std::int64_t> capacity_;  // of the edges 0, 2, 4, ...; odd ones lead back
};

}  // namespace mb::planner
