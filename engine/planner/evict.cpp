#include "evict.h"

#include <algorithm>
#include <cmath>

namespace mb::planner {
namespace {

constexpr int kNever = std::numeric_limits<int>::max();
constexpr double kImpossible = std::numeric_limits<double>::infinity();
constexpr int kDeepest = 48;   // tasks looked at to price a tensor; deeper ones count as one
constexpr int kMostRuns = 10;  // times the number of tasks: beyond it, a rule only thrashes

// h_DTR (Kirisame et al. 2021) with a future: a tensor's score is the cost to make it again over
// bytes times the distance to its next read, which is exact here (Belady), not guessed from the
// past. A dead tensor that an evicted one is made from is read when that one is.
class Eviction {
 public:
  Eviction(const Graph& graph, const Runs& order, Bytes budget, const EvictRule& rule)
      : graph_(graph),
        order_(order),
        budget_(budget),
        rule_(rule),
        live_(graph.base_bytes),
        reads_(graph.bytes.size()),
        tensors_(graph.bytes.size()),
        has_once_(graph.has_once()),
        ran_(graph.tasks.size(), 0),
        seen_(graph.tasks.size(), 0) {
    for (int at = int(order.size()) - 1; at >= 0; --at) {
      for (int t : graph.tasks[order[at]].inputs) reads_[t].push_back(at);
    }
    for (int t = 0; t < graph.tensor_count(); ++t) {
      if (graph.keep[t]) reads_[t].insert(reads_[t].begin(), int(order.size()));
    }
  }

  std::optional<Runs> run() {
    for (now_ = 0; now_ < int(order_.size()); ++now_) {
      if (!run_task(order_[now_])) return std::nullopt;
    }
    for (int t = 0; t < graph_.tensor_count(); ++t) {
      if (!graph_.keep[t]) continue;
      if (!tensors_[t].resident && !run_task(graph_.maker[t])) return std::nullopt;
      ++tensors_[t].locks;
    }
    return std::move(runs_);
  }

  std::int64_t work() const { return work_; }

 private:
  struct Tensor {
    bool resident = false, made = false;
    int locks = 0;
    int place = -1;         // in candidates_
    double price = -1;      // cost to make it again, as last looked at; negative: unknown
    int indirect = kNever;  // next read of an evicted tensor that is made from it
  };

  int next_read(int t) const { return reads_[t].empty() ? kNever : reads_[t].back(); }

  // Also through evicted tensors.
  int next_need(int t) {
    Tensor& tensor = tensors_[t];
    if (tensor.indirect != kNever && tensor.indirect < now_) tensor.indirect = look_through(t);
    return std::min(next_read(t), tensor.indirect);
  }

  int look_through(int t) const {
    int soonest = kNever;
    for (int user : graph_.users[t]) {
      for (int u : graph_.tasks[user].outputs) {
        if (tensors_[u].resident || !tensors_[u].made) continue;
        const int need = std::min(next_read(u), tensors_[u].indirect);
        if (need >= now_) soonest = std::min(soonest, need);
      }
    }
    return soonest;
  }

  // kImpossible when a task would have to run a second time that must not.
  double price_of(int t) {
    ++stamp_;
    double sum = 0;
    stack_.assign(1, graph_.maker[t]);
    seen_[graph_.maker[t]] = stamp_;
    for (int looked = 0; !stack_.empty() && (has_once_ || looked < kDeepest); ++looked) {
      const int o = stack_.back();
      stack_.pop_back();
      work_ += 4;
      if (graph_.tasks[o].once) return kImpossible;
      if (looked < kDeepest) sum += graph_.tasks[o].cost;
      for (int input : graph_.tasks[o].inputs) {
        const int maker = graph_.maker[input];
        if (tensors_[input].resident || seen_[maker] == stamp_) continue;
        seen_[maker] = stamp_;
        stack_.push_back(maker);
      }
    }
    return sum;
  }

  double score(int t) {
    const int need = next_need(t);
    if (need == kNever) return -double(graph_.bytes[t]);  // of no use: the largest first
    const double distance = double(std::max(1, need - now_));
    const double spread = rule_.exponent == 1     ? distance
                          : rule_.exponent == 0.5 ? std::sqrt(distance)
                                                  : std::pow(distance, rule_.exponent);
    const double weight = rule_.weight.empty() ? 1 : rule_.weight[t];
    return weight * tensors_[t].price / (double(graph_.bytes[t]) * spread);
  }

  // Prices grow as others are evicted: the cheapest is priced anew until it stays the cheapest.
  int victim() {
    for (int look = 0;; ++look) {
      int best = -1;
      double least = 0;
      work_ += std::int64_t(candidates_.size());
      for (int t : candidates_) {
        if (tensors_[t].locks > 0 || graph_.bytes[t] == 0) continue;
        if (tensors_[t].price < 0) tensors_[t].price = price_of(t);
        const double found = score(t);
        if (found < kImpossible && (best < 0 || found < least)) best = t, least = found;
      }
      if (best < 0 || least < 0) return best;
      const double price = price_of(best);
      if (price < kImpossible && (look >= 4 || price <= tensors_[best].price * 1.0001)) return best;
      tensors_[best].price = price;
    }
  }

  bool make_room(Bytes need) {
    while (live_ + need > budget_) {
      const int t = victim();
      if (t < 0 || work_ > rule_.most_work) return false;
      drop(t);
      const int needed = std::min(next_read(t), tensors_[t].indirect);
      if (needed != kNever) tell_inputs(t, needed);
    }
    return true;
  }

  // Tensors that an evicted one is made from are needed when it is.
  void tell_inputs(int t, int need) {
    stack_.assign(1, t);
    while (!stack_.empty()) {
      const int out = stack_.back();
      stack_.pop_back();
      work_ += 4;
      for (int input : graph_.tasks[graph_.maker[out]].inputs) {
        if (tensors_[input].indirect <= need && tensors_[input].indirect >= now_) continue;
        tensors_[input].indirect = need;
        if (!tensors_[input].resident) stack_.push_back(input);
      }
    }
  }

  void drop(int t) {
    Tensor& tensor = tensors_[t];
    tensor.resident = false;
    live_ -= graph_.bytes[t];
    candidates_[tensor.place] = candidates_.back();
    tensors_[candidates_.back()].place = tensor.place;
    candidates_.pop_back();
  }

  void add(int t) {
    Tensor& tensor = tensors_[t];
    tensor.resident = tensor.made = true;
    tensor.price = -1;
    tensor.place = int(candidates_.size());
    candidates_.push_back(t);
    live_ += graph_.bytes[t];
    for (int user : graph_.users[t]) {  // these became cheaper
      for (int u : graph_.tasks[user].outputs) tensors_[u].price = -1;
    }
  }

  bool is_main(int o) const { return now_ < int(order_.size()) && o == order_[now_]; }

  bool run_task(int o) {
    const Task& task = graph_.tasks[o];
    if (runs_.size() > std::size_t(kMostRuns) * graph_.tasks.size()) return false;
    if (task.once && ran_[o]) return false;
    for (int t : task.inputs) ++tensors_[t].locks;
    for (int t : task.inputs) {
      if (!tensors_[t].resident && !run_task(graph_.maker[t])) return false;
    }
    if (is_main(o)) {
      for (int t : task.inputs) reads_[t].pop_back();
    }
    Bytes need = task.workspace;
    for (int t : task.outputs) need += tensors_[t].resident ? 0 : graph_.bytes[t];
    taken_.clear();
    for (const Permit& permit : task.permits) {
      const Tensor& in = tensors_[permit.in];
      if (in.locks > 1 || tensors_[permit.out].resident || next_read(permit.in) != kNever) continue;
      if (has_once_ && next_need(permit.in) != kNever && price_of(permit.in) >= kImpossible)
        continue;
      if (std::find(taken_.begin(), taken_.end(), permit.in) != taken_.end()) continue;
      taken_.push_back(permit.in);
      need -= std::min(graph_.bytes[permit.in], graph_.bytes[permit.out]);
    }
    if (!make_room(need)) return false;
    cost_ += task.cost;
    if (cost_ >= rule_.cutoff) return false;
    runs_.push_back(o);
    ran_[o] = 1;
    work_ += 8;
    for (int t : task.inputs) --tensors_[t].locks;
    for (int t : taken_) drop(t);
    for (int t : task.outputs) {
      if (!tensors_[t].resident) add(t);
    }
    return true;
  }

  const Graph& graph_;
  const Runs& order_;
  const Bytes budget_;
  const EvictRule& rule_;
  Bytes live_;
  std::vector<std::vector<int>> reads_;  // positions in the order, the next one last
  std::vector<Tensor> tensors_;
  const bool has_once_;
  std::vector<char> ran_;        // tasks
  std::vector<int> candidates_;  // resident tensors
  std::vector<int> seen_, stack_, taken_;
  int stamp_ = 0, now_ = 0;
  double cost_ = 0;
  std::int64_t work_ = 0;
  Runs runs_;
};

}  // namespace

Evicted evict(const Graph& graph, const Runs& order, Bytes budget, const EvictRule& rule) {
  Eviction eviction(graph, order, budget, rule);
  Evicted result{eviction.run(), eviction.work()};
  if (result.runs) result.runs = tidy(graph, *result.runs);
  return result;
}

}  // namespace mb::planner
