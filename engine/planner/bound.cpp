#include "bound.h"

#include <algorithm>

#include "flow.h"

namespace mb::planner {
namespace {

// Costs are scaled to integers so that a cut is exact; rounding down keeps the bound a bound.
constexpr double kScale = double(std::int64_t(1) << 44);

// The moment at which `task` runs for the first time: its ancestors have run, its descendants have
// not. What descendants (and `keep`) read and others make is resident now or is made again later.
struct Slice {
  int task;
  std::vector<char> ancestor, descendant;  // of tasks; both include the task itself
  std::vector<char> at_hand;               // tensors that the task reads or makes
  std::vector<int> wanted;                 // tensors
  Bytes working_set;
};

Slice slice_at(const Graph& graph, int task) {
  Slice slice{task, {}, {}, {}, {}, working_set(graph, task)};
  slice.ancestor.assign(graph.tasks.size(), 0);
  slice.descendant.assign(graph.tasks.size(), 0);
  slice.at_hand.assign(graph.bytes.size(), 0);
  slice.ancestor[task] = slice.descendant[task] = 1;
  for (int o = task; o >= 0; --o) {
    if (!slice.ancestor[o]) continue;
    for (int t : graph.tasks[o].inputs) slice.ancestor[graph.maker[t]] = 1;
  }
  for (int o = task; o < graph.task_count(); ++o) {
    if (!slice.descendant[o]) continue;
    for (int t : graph.tasks[o].outputs) {
      for (int user : graph.users[t]) slice.descendant[user] = 1;
    }
  }
  for (int t : graph.tasks[task].inputs) slice.at_hand[t] = 1;
  for (int t : graph.tasks[task].outputs) slice.at_hand[t] = 1;
  for (int t = 0; t < graph.tensor_count(); ++t) {
    if (graph.maker[t] < 0 || slice.descendant[graph.maker[t]] || slice.at_hand[t]) continue;
    const bool read = std::any_of(graph.users[t].begin(), graph.users[t].end(),
                                  [&](int user) { return slice.descendant[user]; });
    if (read || graph.keep[t]) slice.wanted.push_back(t);
  }
  return slice;
}

// Bytes made by ancestors and wanted later: the peak at this slice when nothing is made again.
Bytes full_bytes(const Graph& graph, const Slice& slice) {
  Bytes sum = slice.working_set;
  for (int t : slice.wanted) {
    if (slice.ancestor[graph.maker[t]]) sum += graph.bytes[t];
  }
  return sum;
}

// Source -> wanted tensors; tensor -> its maker at the price of its bytes (cut: resident); task ->
// sink at its cost (cut: made again) and -> its inputs without end.
class SliceCut {
 public:
  SliceCut(const Graph& graph, const Slice& slice)
      : graph_(graph),
        network_(graph.tensor_count() + graph.task_count() + 2),
        wanted_node_(graph.bytes.size(), 0),
        expanded_(graph.tasks.size(), 0) {
    const double total = graph.cost();
    unit_ = total > 0 ? kScale / total : kScale;
    for (int t : slice.wanted) {
      network_.add_edge(source(), t, FlowNetwork::kEndless);
      want(t);
    }
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const int t = tensors_[i], o = graph.maker[t];
      keep_edges_.push_back(network_.add_edge(t, task_node(o), 0));
      if (expanded_[o]) continue;
      expanded_[o] = 1;
      const bool has_run = slice.ancestor[o];
      const std::int64_t again = has_run && graph.tasks[o].once
                                     ? FlowNetwork::kEndless
                                     : std::int64_t((has_run ? graph.tasks[o].cost : 0) * unit_);
      network_.add_edge(task_node(o), sink(), again);
      for (int input : graph.tasks[o].inputs) {
        if (slice.at_hand[input]) continue;
        network_.add_edge(task_node(o), input, FlowNetwork::kEndless);
        want(input);
      }
    }
  }

  struct Point {
    double value;    // of the least cut, in cost
    Bytes resident;  // bytes that the cut keeps
  };

  Point solve(double price) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const double capacity = price * double(graph_.bytes[tensors_[i]]) * unit_;
      network_.set_capacity(keep_edges_[i], std::int64_t(std::min(capacity, 4 * kScale)));
    }
    Point point{double(network_.maximum_flow(source(), sink())) / unit_, 0};
    for (int t : tensors_) {
      if (kept(t)) point.resident += graph_.bytes[t];
    }
    return point;
  }

  bool kept(int t) const {
    return wanted_node_[t] && network_.on_source_side(t) &&
           !network_.on_source_side(task_node(graph_.maker[t]));
  }

 private:
  int task_node(int task) const { return graph_.tensor_count() + task; }
  int source() const { return graph_.tensor_count() + graph_.task_count(); }
  int sink() const { return source() + 1; }

  void want(int t) {
    if (wanted_node_[t]) return;
    wanted_node_[t] = 1;
    tensors_.push_back(t);
  }

  const Graph& graph_;
  FlowNetwork network_;
  double unit_;
  std::vector<int> tensors_, keep_edges_;
  std::vector<char> wanted_node_, expanded_;
};

// max over prices of (cut - price * room): concave and piecewise linear, so the crossing of the
// best rising and the best falling line is the next price (Kelley 1960); every value is a bound.
double price_bound(const Graph& graph, const Slice& slice, Bytes room, int steps) {
  SliceCut cut(graph, slice);
  double low_value = 0, best = 0;  // at price 0 everything stays, for nothing
  double low_slope = 0;
  for (int t : slice.wanted) low_slope += double(graph.bytes[t]);
  low_slope -= double(room);
  if (low_slope <= 0) return 0;
  double high_price = 0, high_slope = 0, high_value = 0, low_price = 0;
  double price = graph.cost() / std::max(1.0, low_slope);
  for (int step = 0; step < steps; ++step) {
    const SliceCut::Point point = cut.solve(price);
    const double value = point.value - price * double(room);
    const double slope = double(point.resident - room);
    best = std::max(best, value);
    if (slope == 0) break;
    if (slope > 0) {
      low_price = price, low_value = value, low_slope = slope;
    } else {
      high_price = price, high_value = value, high_slope = slope;
    }
    if (high_slope == 0) {
      price *= 8;
      continue;
    }
    const double next = (high_value - low_value + low_slope * low_price - high_slope * high_price) /
                        (low_slope - high_slope);
    const double promised = low_value + low_slope * (next - low_price);
    if (!(promised > best * (1 + 1e-4)) || next <= low_price || next >= high_price) break;
    price = next;
  }
  return best;
}

constexpr int kSamples = 240;

std::vector<int> sampled_tasks(const Graph& graph, int count) {
  std::vector<int> tasks;
  const int n = graph.task_count();
  for (int i = 0; i < std::min(n, count); ++i) {
    tasks.push_back(int(std::int64_t(i) * n / std::min(n, count)));
  }
  return tasks;
}

}  // namespace

Bytes working_set(const Graph& graph, int task) {
  const Task& o = graph.tasks[task];
  Bytes sum = graph.base_bytes + o.output_bytes + o.workspace - o.base_relief;
  for (int t : o.inputs) sum += graph.bytes[t];
  for (const Permit& permit : o.permits) {
    sum -= std::min(graph.bytes[permit.out], graph.bytes[permit.in]);
  }
  return sum;
}

namespace {

// For each task the bytes that surely lie beside its working set: of a task that runs only once the
// outputs that were made before and are read after it.
std::vector<Bytes> surely_beside(const Graph& graph) {
  std::vector<Bytes> beside(graph.tasks.size(), 0);
  std::vector<char> after, before, at_hand(graph.tasks.size(), 0);
  for (int t = 0; t < graph.tensor_count(); ++t) {
    const int maker = graph.maker[t];
    if (maker < 0 || !graph.tasks[maker].once || graph.bytes[t] == 0) continue;
    after.assign(graph.tasks.size(), 0);
    before.assign(graph.tasks.size(), graph.keep[t]);
    after[maker] = 1;
    for (int o = maker; o < graph.task_count(); ++o) {
      if (!after[o]) continue;
      for (int out : graph.tasks[o].outputs) {
        for (int user : graph.users[out]) after[user] = 1;
      }
    }
    for (int user : graph.users[t]) before[user] = 1;
    for (int o = graph.task_count() - 1; o > maker; --o) {
      if (!before[o]) continue;
      for (int in : graph.tasks[o].inputs) before[graph.maker[in]] = 1;
    }
    for (int user : graph.users[t]) at_hand[user] = 1;
    for (int o = maker + 1; o < graph.task_count(); ++o) {
      if (after[o] && before[o] && !at_hand[o]) beside[o] += graph.bytes[t];
    }
    for (int user : graph.users[t]) at_hand[user] = 0;
  }
  return beside;
}

}  // namespace

Floor least_peak_bound(const Graph& graph) {
  const std::vector<Bytes> beside = surely_beside(graph);
  Floor most{graph.base_bytes, -1};
  for (int t = 0; t < graph.tensor_count(); ++t) most.bytes += graph.keep[t] ? graph.bytes[t] : 0;
  for (int o = 0; o < graph.task_count(); ++o) {
    const Bytes bytes = working_set(graph, o) + beside[o];
    if (most.task < 0 ? bytes >= most.bytes : bytes > most.bytes) most = {bytes, o};
  }
  return most;
}

int fullest_slice(const Graph& graph) {
  int best = -1;
  Bytes most = -1;
  for (int o : sampled_tasks(graph, kSamples)) {
    const Bytes bytes = full_bytes(graph, slice_at(graph, o));
    if (bytes > most) best = o, most = bytes;
  }
  return best;
}

Bound slice_bound(const Graph& graph, Bytes budget, int slices, int price_steps) {
  Bound bound{graph.cost(), true, -1};
  const std::vector<int> samples = sampled_tasks(graph, kSamples);
  std::vector<std::pair<Bytes, int>> fullest;  // (-bytes, index into samples)
  for (int i = 0; i < int(samples.size()); ++i) {
    if (working_set(graph, samples[i]) > budget) return {bound.cost, false, samples[i]};
    fullest.emplace_back(-full_bytes(graph, slice_at(graph, samples[i])), i);
  }
  std::sort(fullest.begin(), fullest.end());
  std::vector<char> done(samples.size(), 0);
  int best = -1;
  const auto visit = [&](int i) {
    if (i < 0 || i >= int(samples.size()) || done[i]) return;
    done[i] = 1;
    const Slice slice = slice_at(graph, samples[i]);
    const Bytes room = budget - slice.working_set;
    const double again = price_bound(graph, slice, room, price_steps);
    // More than all tasks cost: only what must not be made again asks for so much.
    if (again > graph.cost() * (1 + 1e-9)) bound.feasible = false;
    const double cost = graph.cost() + again;
    if (best < 0 || cost > bound.cost) bound.cost = cost, bound.task = samples[i], best = i;
  };
  // Half of the slices from the fullest third, evenly; then closer and closer to the best.
  const int third = std::max(1, int(fullest.size()) / 3), first = std::max(1, slices / 2);
  for (int s = 0; s < first; ++s) visit(fullest[std::size_t(s) * third / first].second);
  for (int s = first, step = std::max(1, int(samples.size()) / 16); s < slices; s += 2) {
    const int center = best;
    visit(center - step);
    visit(center + step);
    if (best == center) step = std::max(1, step / 2);
  }
  return bound;
}

std::vector<char> slice_cut(const Graph& graph, int task, double price) {
  const Slice slice = slice_at(graph, task);
  SliceCut cut(graph, slice);
  cut.solve(price);
  std::vector<char> kept(graph.bytes.size(), 0);
  for (int t = 0; t < graph.tensor_count(); ++t) kept[t] = cut.kept(t);
  return kept;
}

}  // namespace mb::planner
