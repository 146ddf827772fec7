#include "order.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace mb::planner {
namespace {

// The ready task that adds the fewest bytes next (LPMF of PyTorch's reorder_for_peak_memory).
Runs least_growth(const Graph& graph) {
  std::vector<int> missing(graph.tasks.size(), 0), readers(graph.bytes.size(), 0);
  std::vector<int> ready;
  for (int o = 0; o < graph.task_count(); ++o) {
    missing[o] = int(graph.tasks[o].inputs.size());
    for (int t : graph.tasks[o].inputs) ++readers[t];
    if (missing[o] == 0) ready.push_back(o);
  }
  const auto growth = [&](int o) {
    Bytes sum = graph.tasks[o].output_bytes;
    for (int t : graph.tasks[o].inputs) {
      if (readers[t] == 1 && !graph.keep[t]) sum -= graph.bytes[t];
    }
    return std::make_pair(sum, o);
  };
  Runs order;
  while (!ready.empty()) {
    const auto next = std::min_element(ready.begin(), ready.end(),
                                       [&](int a, int b) { return growth(a) < growth(b); });
    const int o = *next;
    ready.erase(next);
    order.push_back(o);
    for (int t : graph.tasks[o].inputs) --readers[t];
    for (int t : graph.tasks[o].outputs) {
      for (int user : graph.users[t]) {
        if (--missing[user] == 0) ready.push_back(user);
      }
    }
  }
  return order;
}

// Program order, but a task that frees more than it makes runs as soon as it can: updates follow
// their gradients.
class Early {
 public:
  explicit Early(const Graph& graph)
      : graph_(graph),
        missing_(graph.tasks.size(), 0),
        readers_(graph.bytes.size(), 0),
        done_(graph.tasks.size(), 0) {
    for (int o = 0; o < graph.task_count(); ++o) {
      missing_[o] = int(graph.tasks[o].inputs.size());
      for (int t : graph.tasks[o].inputs) ++readers_[t];
    }
  }

  Runs order() {
    for (int o = 0; o < graph_.task_count(); ++o) {
      for (waiting_.assign(1, o); !waiting_.empty();) {
        const int next = waiting_.back();
        waiting_.pop_back();
        if (!done_[next] && (next == o || (missing_[next] == 0 && growth(next) < 0))) run(next);
      }
    }
    return std::move(order_);
  }

 private:
  Bytes growth(int o) const {
    Bytes sum = graph_.tasks[o].output_bytes;
    for (int t : graph_.tasks[o].inputs) {
      if (readers_[t] == 1 && !graph_.keep[t]) sum -= graph_.bytes[t];
    }
    return sum;
  }

  void run(int o) {
    done_[o] = 1;
    order_.push_back(o);
    const Task& task = graph_.tasks[o];
    for (int t : task.outputs) {
      for (int user : graph_.users[t]) --missing_[user];
    }
    for (int t : task.inputs) --readers_[t];
    for (int t : task.outputs) look_at_users(t);
    for (int t : task.inputs) {
      if (readers_[t] == 1) look_at_users(t);
    }
  }

  void look_at_users(int t) {
    waiting_.insert(waiting_.end(), graph_.users[t].begin(), graph_.users[t].end());
  }

  const Graph& graph_;
  std::vector<int> missing_, readers_, waiting_;
  std::vector<char> done_;
  Runs order_;
};

// Every task directly before the first one that reads it, as far as its inputs allow: from the
// ends of the graph back, the task whose leaving frees the most.
Runs late(const Graph& graph) {
  std::vector<int> waiting(graph.tasks.size(), 0);
  std::vector<char> live(graph.bytes.size(), 0);
  std::vector<int> ready;
  for (int o = 0; o < graph.task_count(); ++o) {
    for (int t : graph.tasks[o].outputs) waiting[o] += int(graph.users[t].size());
    if (waiting[o] == 0) ready.push_back(o);
  }
  for (int t = 0; t < graph.tensor_count(); ++t) live[t] = graph.keep[t];
  const auto growth = [&](int o) {
    Bytes sum = 0;
    for (int t : graph.tasks[o].inputs) sum += live[t] ? 0 : graph.bytes[t];
    for (int t : graph.tasks[o].outputs) sum -= live[t] ? graph.bytes[t] : 0;
    return std::make_pair(sum, -o);
  };
  Runs order;
  while (!ready.empty()) {
    const auto next = std::min_element(ready.begin(), ready.end(),
                                       [&](int a, int b) { return growth(a) < growth(b); });
    const int o = *next;
    ready.erase(next);
    order.push_back(o);
    for (int t : graph.tasks[o].outputs) live[t] = 0;
    for (int t : graph.tasks[o].inputs) {
      live[t] = 1;
      if (--waiting[graph.maker[t]] == 0) ready.push_back(graph.maker[t]);
    }
  }
  std::reverse(order.begin(), order.end());
  return order;
}

// What `keep` needs, one tensor after the other, inputs with the most bytes first.
Runs depth_first(const Graph& graph) {
  std::vector<char> done(graph.tasks.size(), 0);
  Runs order;
  std::vector<int> stack;
  for (int root = graph.task_count() - 1; root >= 0; --root) stack.push_back(root);
  while (!stack.empty()) {
    const int o = stack.back();
    if (done[o]) {
      stack.pop_back();
      continue;
    }
    std::vector<int> inputs = graph.tasks[o].inputs;
    std::erase_if(inputs, [&](int t) { return done[graph.maker[t]]; });
    if (inputs.empty()) {
      done[o] = 1;
      order.push_back(o);
      stack.pop_back();
      continue;
    }
    std::sort(inputs.begin(), inputs.end(),
              [&](int a, int b) { return graph.bytes[a] < graph.bytes[b]; });
    for (int t : inputs) stack.push_back(graph.maker[t]);
  }
  return order;
}

// Positions that task `order[at]` may move to: after its inputs' makers, before its readers.
std::pair<int, int> room(const Graph& graph, const Runs& order, const std::vector<int>& place,
                         int at) {
  int low = 0, high = int(order.size()) - 1;
  for (int t : graph.tasks[order[at]].inputs) low = std::max(low, place[graph.maker[t]] + 1);
  for (int t : graph.tasks[order[at]].outputs) {
    for (int user : graph.users[t]) high = std::min(high, place[user] - 1);
  }
  return {low, high};
}

Runs moved(const Runs& order, int from, int to) {
  Runs result = order;
  const auto begin = result.begin();
  if (from < to) std::rotate(begin + from, begin + from + 1, begin + to + 1);
  if (to < from) std::rotate(begin + to, begin + from, begin + from + 1);
  return result;
}

// The tasks that make or read what is live at the peak.
std::set<int> around(const Graph& graph, const Timeline& line, int peak) {
  std::set<int> tasks;
  for (const Life& life : line.lives) {
    if (life.first > peak || life.last < peak) continue;
    tasks.insert(graph.maker[life.tensor]);
    tasks.insert(graph.users[life.tensor].begin(), graph.users[life.tensor].end());
  }
  return tasks;
}

// Fewer bytes at the peak, or as many at fewer places.
std::pair<Bytes, int> height(const Timeline& line) {
  return {line.peak, int(std::count(line.live.begin(), line.live.end(), line.peak))};
}

}  // namespace

Runs order_by(const Graph& graph, OrderRule rule) {
  switch (rule) {
    case OrderRule::kLeastGrowth:
      return least_growth(graph);
    case OrderRule::kDepthFirst:
      return depth_first(graph);
    case OrderRule::kLate:
      return late(graph);
    case OrderRule::kEarly:
      return Early(graph).order();
    case OrderRule::kProgram:
      break;
  }
  Runs order(graph.tasks.size());
  std::iota(order.begin(), order.end(), 0);
  return order;
}

Runs lower_peak(const Graph& graph, const Runs& start, Bytes enough, int tries) {
  Runs order = start;
  Timeline line = timeline(graph, order);
  for (bool better = true; better && line.peak > enough && tries > 0;) {
    better = false;
    std::vector<int> place(order.size());
    for (int at = 0; at < int(order.size()); ++at) place[order[at]] = at;
    const int peak = int(std::max_element(line.live.begin(), line.live.end()) - line.live.begin());
    for (int o : around(graph, line, peak)) {
      const int at = place[o];
      const auto [low, high] = room(graph, order, place, at);
      // To the other side of the peak, next to it or as far as possible.
      for (int to : {at <= peak ? std::min(high, peak) : std::max(low, peak),
                     at <= peak ? high : low, at < peak ? std::min(high, peak - 1) : low}) {
        if (to == at || to < low || to > high || tries-- <= 0) continue;
        Runs next = moved(order, at, to);
        Timeline changed = timeline(graph, next);
        if (height(changed) >= height(line)) continue;
        order = std::move(next), line = std::move(changed);
        better = true;
        break;
      }
      if (better) break;
    }
  }
  return order;
}

}  // namespace mb::planner
