#include "flow.h"

#include <algorithm>

namespace mb::planner {

int FlowNetwork::add_edge(int from, int to, std::int64_t capacity) {
  edges_.push_back({to, heads_[from], 0});
  heads_[from] = int(edges_.size()) - 1;
  edges_.push_back({from, heads_[to], 0});
  heads_[to] = int(edges_.size()) - 1;
  capacity_.push_back(capacity);
  return int(capacity_.size()) - 1;
}

bool FlowNetwork::search_levels(int source, int sink) {
  level_.assign(heads_.size(), -1);
  queue_.assign(1, source);
  level_[source] = 0;
  for (std::size_t i = 0; i < queue_.size(); ++i) {
    for (int e = heads_[queue_[i]]; e >= 0; e = edges_[e].next) {
      if (edges_[e].room == 0 || level_[edges_[e].to] >= 0) continue;
      level_[edges_[e].to] = level_[queue_[i]] + 1;
      queue_.push_back(edges_[e].to);
    }
    if (level_[sink] >= 0) return true;  // nodes behind the sink are of no use
  }
  return false;
}

// Pushes flow along one path of rising levels; 0 when there is none left. Without recursion: paths
// of deep networks are thousands of nodes long.
std::int64_t FlowNetwork::push_path(int source, int sink) {
  path_.clear();
  int node = source;
  while (node != sink) {
    int& e = cursor_[node];
    while (e >= 0 && (edges_[e].room == 0 || level_[edges_[e].to] != level_[node] + 1)) {
      e = edges_[e].next;
    }
    if (e >= 0) {
      path_.push_back(e);
      node = edges_[e].to;
      continue;
    }
    level_[node] = -1;  // a dead end
    if (path_.empty()) return 0;
    node = edges_[path_.back() ^ 1].to;
    path_.pop_back();
    cursor_[node] = edges_[cursor_[node]].next;
  }
  std::int64_t flow = kEndless;
  for (int e : path_) flow = std::min(flow, edges_[e].room);
  for (int e : path_) {
    edges_[e].room -= flow;
    edges_[e ^ 1].room += flow;
  }
  return flow;
}

std::int64_t FlowNetwork::maximum_flow(int source, int sink) {
  for (std::size_t e = 0; e < capacity_.size(); ++e) {
    edges_[2 * e].room = capacity_[e];
    edges_[2 * e + 1].room = 0;
  }
  std::int64_t total = 0;
  while (search_levels(source, sink)) {
    cursor_ = heads_;
    while (const std::int64_t flow = push_path(source, sink)) {
      total += flow;
      if (total >= kEndless) return total;
    }
  }
  return total;
}

}  // namespace mb::planner
