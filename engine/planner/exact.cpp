#include "exact.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <unordered_map>

namespace mb::planner {
namespace {

using Set = std::uint64_t;  // of tensors, and of tasks that have run their one time

struct State {
  double distance;
  Set from;
  int task;  // that was run to come here; -1: tensors were dropped
  bool closed;
};

struct Open {
  double estimate, distance;
  Set set;
  bool operator<(const Open& other) const { return estimate > other.estimate; }
};

struct Hash {
  std::size_t operator()(Set set) const { return (set ^ (set >> 29)) * 0x9E3779B97F4A7C15ull; }
};

// A* (Hart, Nilsson & Raphael 1968) over resident sets. The estimate of what is left is the cost of
// the tasks that are needed when memory does not matter; dropping a tensor never lowers it, and
// a run lowers it by at most the run's cost, so it is consistent: a closed set needs no second
// look.
class Search {
 public:
  Search(const Graph& graph, Bytes budget, double cutoff)
      : graph_(graph), budget_(budget - graph.base_bytes), cutoff_(cutoff) {
    int next = graph.tensor_count();
    for (const Task& task : graph.tasks) {
      Step step;
      if (task.once) step.done = bit(next++);
      all_done_ |= step.done;
      for (int t : task.inputs) step.inputs |= bit(t);
      for (int t : task.outputs) step.outputs |= bit(t);
      steps_.push_back(step);
    }
    for (int t = 0; t < graph.tensor_count(); ++t) {
      if (graph.keep[t] && graph.maker[t] >= 0) keep_ |= bit(t);
    }
  }

  Exact run(std::int64_t max_states) {
    reach(0, 0, 0, -1);
    Exact result;
    while (!open_.empty()) {
      const Open next = open_.top();
      open_.pop();
      State& state = states_[next.set];
      if (state.closed) continue;
      state.closed = true;
      result.cost_bound = next.estimate;
      if ((keep_ & ~next.set) == 0) {
        result.proof = Proof::kOptimal;
        result.runs = path(next.set);
        return result;
      }
      if (std::int64_t(states_.size()) > max_states) return result;
      expand(next.set, next.distance);
    }
    result.proof = Proof::kInfeasible;
    return result;
  }

 private:
  struct Step {
    Set inputs = 0, outputs = 0, done = 0;
  };

  static Set bit(int t) { return Set(1) << t; }

  Bytes bytes(Set set) const {
    Bytes sum = 0;
    for (set &= ~all_done_; set != 0; set &= set - 1) sum += graph_.bytes[__builtin_ctzll(set)];
    return sum;
  }

  // Endless where a task would have to run a second time that must not.
  double left(Set resident) const {
    Set wanted = keep_ & ~resident;
    double sum = 0;
    for (int o = graph_.task_count() - 1; o >= 0 && wanted != 0; --o) {
      if ((steps_[o].outputs & wanted) == 0) continue;
      if ((steps_[o].done & resident) != 0) return std::numeric_limits<double>::infinity();
      sum += graph_.tasks[o].cost;
      wanted = (wanted & ~steps_[o].outputs) | (steps_[o].inputs & ~resident);
    }
    return sum;
  }

  void reach(Set set, double distance, Set from, int task) {
    const double estimate = distance + left(set);
    if (estimate >= cutoff_) return;
    const auto [place, is_new] = states_.try_emplace(set, State{distance, from, task, false});
    if (!is_new) {
      if (place->second.closed || place->second.distance <= distance) return;
      place->second = {distance, from, task, false};
    }
    open_.push({estimate, distance, set});
  }

  void expand(Set set, double distance) {
    const Bytes resident = bytes(set);
    bool tight = false;  // some run would fit if something were dropped
    for (int o = 0; o < graph_.task_count(); ++o) {
      const Step& step = steps_[o];
      if ((step.inputs & ~set) != 0 || (step.outputs & ~set) == 0) continue;
      if ((step.done & set) != 0) continue;
      const Task& task = graph_.tasks[o];
      const Set missing = step.outputs & ~set;
      const Bytes peak = resident + bytes(missing) + task.workspace;
      if (peak <= budget_) reach(set | missing | step.done, distance + task.cost, set, o);
      if (peak > budget_) tight = true;
      take(set, missing, o, distance, peak);
    }
    if (!tight) return;
    for (Set rest = set & ~all_done_; rest != 0; rest &= rest - 1) {
      reach(set & ~(rest & -rest), distance, set, -1);
    }
  }

  // Every non-empty choice of permits.
  void take(Set set, Set missing, int o, double distance, Bytes peak) {
    const auto& permits = graph_.tasks[o].permits;
    for (unsigned choice = 1; choice < 1u << std::min<std::size_t>(permits.size(), 8); ++choice) {
      Set gone = 0;
      Bytes saved = 0;
      bool good = true;
      for (std::size_t p = 0; p < permits.size() && good; ++p) {
        if ((choice >> p & 1) == 0) continue;
        good = (missing & bit(permits[p].out)) != 0 && (gone & bit(permits[p].in)) == 0;
        gone |= bit(permits[p].in);
        saved += std::min(graph_.bytes[permits[p].out], graph_.bytes[permits[p].in]);
      }
      if (!good || peak - saved > budget_) continue;
      reach(((set | missing) & ~gone) | steps_[o].done, distance + graph_.tasks[o].cost, set, o);
    }
  }

  Runs path(Set set) {
    Runs runs;
    for (bool at_start = false; !at_start;) {
      const State& state = states_.at(set);
      if (state.task >= 0) runs.push_back(state.task);
      at_start = state.from == set;
      set = state.from;
    }
    std::reverse(runs.begin(), runs.end());
    return runs;
  }

  const Graph& graph_;
  const Bytes budget_;
  const double cutoff_;
  Set keep_ = 0, all_done_ = 0;
  std::vector<Step> steps_;
  std::unordered_map<Set, State, Hash> states_;
  std::priority_queue<Open> open_;
};

}  // namespace

Exact exact(const Graph& graph, Bytes budget, std::int64_t max_states, double cutoff) {
  const auto once = std::count_if(graph.tasks.begin(), graph.tasks.end(),
                                  [](const Task& task) { return task.once; });
  if (graph.tensor_count() + once > 64) return {};
  return Search(graph, budget, cutoff).run(max_states);
}

}  // namespace mb::planner
