#include "timeline.h"

#include <algorithm>

namespace mb::planner {
namespace {

std::vector<Life> lives_of(const Graph& graph, const Runs& runs) {
  const int end = int(runs.size()) - 1;
  std::vector<Life> lives;
  std::vector<int> current(graph.bytes.size(), -1);  // index into lives
  lives.reserve(runs.size());
  for (int at = 0; at <= end; ++at) {
    const Task& task = graph.tasks[runs[at]];
    for (int t : task.inputs) lives[current[t]].last = at;
    for (int t : task.outputs) {
      current[t] = int(lives.size());
      lives.push_back({t, at, at});
    }
  }
  for (int t = 0; t < graph.tensor_count(); ++t) {
    if (graph.keep[t] && current[t] >= 0) lives[current[t]].last = end;
  }
  return lives;
}

// Inputs that nobody reads after a run give their bytes to its outputs.
std::vector<Take> takes_of(const Graph& graph, const Runs& runs, const std::vector<Life>& lives) {
  std::vector<Take> takes;
  std::vector<char> taken(graph.bytes.size(), 0);
  for (const Life& life : lives) {
    if (life.first == life.last) continue;
    if (graph.keep[life.tensor] && life.last == int(runs.size()) - 1) continue;
    for (const Permit& permit : graph.tasks[runs[life.last]].permits) {
      if (permit.in != life.tensor || taken[life.tensor]) continue;
      takes.push_back({life.last, permit.out, permit.in});
      taken[life.tensor] = 1;
    }
    taken[life.tensor] = 0;
  }
  return takes;
}

}  // namespace

double Graph::cost() const {
  double sum = 0;
  for (const Task& task : tasks) sum += task.cost;
  return sum;
}

bool Graph::has_once() const {
  return std::any_of(tasks.begin(), tasks.end(), [](const Task& task) { return task.once; });
}

Timeline timeline(const Graph& graph, const Runs& runs) {
  Timeline line;
  line.lives = lives_of(graph, runs);
  line.takes = takes_of(graph, runs, line.lives);
  line.live.assign(runs.size() + 1, 0);
  for (const Life& life : line.lives) {
    line.live[life.first] += graph.bytes[life.tensor];
    line.live[life.last + 1] -= graph.bytes[life.tensor];
  }
  Bytes sum = graph.base_bytes;
  for (std::size_t at = 0; at < runs.size(); ++at) {
    sum += line.live[at];
    line.live[at] = sum + graph.tasks[runs[at]].workspace;
    line.cost += graph.tasks[runs[at]].cost;
  }
  line.live.resize(runs.size());
  for (const Take& take : line.takes) {
    line.live[take.at] -= std::min(graph.bytes[take.out], graph.bytes[take.in]);
  }
  line.peak = graph.base_bytes;
  for (Bytes live : line.live) line.peak = std::max(line.peak, live);
  return line;
}

Runs tidy(const Graph& graph, const Runs& runs) {
  std::vector<char> wanted = graph.keep;
  Runs kept;
  for (auto run = runs.rbegin(); run != runs.rend(); ++run) {
    const Task& task = graph.tasks[*run];
    if (std::none_of(task.outputs.begin(), task.outputs.end(), [&](int t) { return wanted[t]; })) {
      continue;
    }
    for (int t : task.outputs) wanted[t] = 0;
    for (int t : task.inputs) wanted[t] = 1;
    kept.push_back(*run);
  }
  std::reverse(kept.begin(), kept.end());
  return kept;
}

double cost_of(const Graph& graph, const Runs& runs) {
  double sum = 0;
  for (int task : runs) sum += graph.tasks[task].cost;
  return sum;
}

Bytes peak_of(const Graph& graph, const Runs& runs) { return timeline(graph, runs).peak; }

}  // namespace mb::planner
