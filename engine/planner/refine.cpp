#include "refine.h"

#include <algorithm>
#include <numeric>

namespace mb::planner {
namespace {

constexpr std::int64_t kMostWork = 20'000'000;  // runs looked at, over all removals

// A schedule with what is needed to judge the removal of single runs.
class Filling {
 public:
  Filling(const Graph& graph, Runs runs, Bytes budget)
      : graph_(graph), budget_(budget), runs_(std::move(runs)) {
    names_.resize(runs_.size());
    std::iota(names_.begin(), names_.end(), 0);
    index();
  }

  Runs improve() {
    while (pass()) {
    }
    return std::move(runs_);
  }

 private:
  void index() {
    line_ = timeline(graph_, runs_);
    made_by_.assign(runs_.size(), {});
    before_.assign(line_.lives.size(), -1);
    std::vector<int> latest(graph_.bytes.size(), -1);
    for (int life = 0; life < int(line_.lives.size()); ++life) {
      const Life& l = line_.lives[life];
      made_by_[l.first].push_back(life);
      before_[life] = latest[l.tensor];
      latest[l.tensor] = life;
    }
    find_reads();
    place_.assign(names_.empty() ? 0 : *std::max_element(names_.begin(), names_.end()) + 1, -1);
    for (int at = 0; at < int(names_.size()); ++at) place_[names_[at]] = at;
  }

  // The life that each input of a run reads, and each life's last read but one.
  void find_reads() {
    read_lives_.assign(runs_.size(), {});
    read_before_.assign(line_.lives.size(), 0);
    std::vector<int> current(graph_.bytes.size(), -1), last(line_.lives.size());
    for (int at = 0; at < int(runs_.size()); ++at) {
      for (int t : graph_.tasks[runs_[at]].inputs) {
        const int life = current[t];
        read_lives_[at].push_back(life);
        read_before_[life] = last[life];
        last[life] = at;
      }
      for (int life : made_by_[at]) {
        current[line_.lives[life].tensor] = life;
        read_before_[life] = last[life] = at;
      }
    }
  }

  bool pass() {
    std::vector<std::pair<double, int>> order;  // (-cost over bytes and time, name)
    for (int at = 0; at < int(runs_.size()); ++at) {
      double held = 1;
      bool again = false;
      for (int life : made_by_[at]) {
        const Life& l = line_.lives[life];
        if (before_[life] < 0) continue;
        again = true;
        if (!is_read(l)) continue;
        held += double(graph_.bytes[l.tensor]) * (at - line_.lives[before_[life]].last);
      }
      if (again) order.emplace_back(-graph_.tasks[runs_[at]].cost / held, names_[at]);
    }
    std::sort(order.begin(), order.end());
    bool changed = false;
    for (const auto& [value, name] : order) {
      if (place_[name] >= 0 && removable(place_[name]) && remove(place_[name])) changed = true;
    }
    return changed;
  }

  bool is_read(const Life& l) const {
    return l.last > l.first || (graph_.keep[l.tensor] && l.last == int(runs_.size()) - 1);
  }

  // Exact but for runs that removal makes useless in turn; `remove` looks at everything.
  bool removable(int at) {
    if (spent_ > kMostWork) return false;
    int from = at;
    for (int life : made_by_[at]) {
      if (!is_read(line_.lives[life])) continue;
      if (before_[life] < 0) return false;
      from = std::min(from, line_.lives[before_[life]].last + 1);
    }
    const auto& inputs = graph_.tasks[runs_[at]].inputs;
    extra_.assign(std::size_t(at - from) + 1, 0);
    for (int life : made_by_[at]) {
      if (!is_read(line_.lives[life])) continue;
      extra_[line_.lives[before_[life]].last + 1 - from] += graph_.bytes[line_.lives[life].tensor];
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) {  // what only this run holds goes
      const int life = read_lives_[at][i];
      if (line_.lives[life].last != at) continue;
      extra_[std::max(0, read_before_[life] + 1 - from)] -= graph_.bytes[inputs[i]];
    }
    spent_ += at - from;
    Bytes sum = 0;
    for (int q = from; q < at; ++q) {
      sum += extra_[q - from];
      if (line_.live[q] + sum > budget_) return false;
    }
    return true;
  }

  bool remove(int at) {
    spent_ += std::int64_t(runs_.size());
    Runs shorter = runs_;
    shorter.erase(shorter.begin() + at);
    Runs kept = tidy(graph_, shorter);
    if (peak_of(graph_, kept) > budget_) return false;
    names_.erase(names_.begin() + at);
    if (kept.size() != shorter.size()) rename(shorter, kept);
    runs_ = std::move(kept);
    index();
    return true;
  }

  // Names of the runs that tidy kept. It keeps a subsequence, matched from the end as it was made.
  void rename(const Runs& from, const Runs& kept) {
    std::vector<int> names;
    std::size_t k = kept.size();
    for (std::size_t at = from.size(); at-- > 0 && k > 0;) {
      if (from[at] != kept[k - 1]) continue;
      names.push_back(names_[at]);
      --k;
    }
    std::reverse(names.begin(), names.end());
    names_ = std::move(names);
  }

  const Graph& graph_;
  const Bytes budget_;
  std::int64_t spent_ = 0;
  Runs runs_;
  std::vector<int> names_, place_;  // stable names of runs while positions shift
  Timeline line_;
  std::vector<std::vector<int>> made_by_;  // run -> lives that begin there
  std::vector<std::vector<int>> read_lives_;
  std::vector<int> read_before_;
  std::vector<int> before_;  // life -> the tensor's life before it
  std::vector<Bytes> extra_;
};

}  // namespace

Runs fill_gaps(const Graph& graph, Runs runs, Bytes budget) {
  return Filling(graph, std::move(runs), budget).improve();
}

}  // namespace mb::planner
