#include "blocks.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "flow.h"

namespace mb::planner {
namespace {

constexpr std::size_t kMostOptions = 7;
constexpr int kPrices = 14;

using Tensors = std::vector<int>;

bool contains(const Tensors& tensors, int t) {
  return std::find(tensors.begin(), tensors.end(), t) != tensors.end();
}

// Can a range of blocks end at this tensor? Not where it cannot be made again, and what has no
// bytes only says what comes after what.
bool may_cross(const Graph& graph, int t) {
  return !graph.tasks[graph.maker[t]].once && graph.bytes[t] > 0;
}

// Cuts the forward tasks where a single tensor crosses, besides those that stay in any case.
std::vector<Block> cut_forward(const Graph& graph, const Runs& forward) {
  std::vector<int> left(graph.bytes.size(), 0);  // forward readers still to come
  for (int o : forward) {
    for (int t : graph.tasks[o].inputs) ++left[t];
  }
  std::set<int> crossing;
  std::vector<Block> blocks(1);
  for (std::size_t at = 0; at < forward.size(); ++at) {
    const Task& task = graph.tasks[forward[at]];
    blocks.back().forward.push_back(forward[at]);
    for (int t : task.inputs) {
      if (--left[t] == 0) crossing.erase(t);
    }
    for (int t : task.outputs) {
      if (left[t] > 0 && may_cross(graph, t)) crossing.insert(t);
    }
    if (crossing.size() != 1 || at + 1 == forward.size()) continue;
    if (*crossing.begin() == blocks.back().input) continue;
    blocks.back().output = *crossing.begin();
    blocks.emplace_back();
    blocks.back().input = *crossing.begin();
  }
  return blocks;
}

// A backward task belongs to the earliest block whose tensors it or one before it reads.
void share_backward(const Graph& graph, std::vector<Block>& blocks, const Runs& backward) {
  std::vector<int> home(graph.bytes.size(), -1);  // of tensors made in the forward pass
  for (int b = 0; b < int(blocks.size()); ++b) {
    for (int o : blocks[b].forward) {
      for (int t : graph.tasks[o].outputs) home[t] = may_cross(graph, t) ? b : -1;
    }
  }
  for (int b = 0; b < int(blocks.size()); ++b) {
    if (blocks[b].input >= 0) home[blocks[b].input] = b;
  }
  int current = int(blocks.size()) - 1;
  for (int o : backward) {
    for (int t : graph.tasks[o].inputs) {
      if (home[t] >= 0) current = std::min(current, home[t]);
    }
    blocks[current].backward.push_back(o);
  }
}

// What a block reads and cannot make again: it is among the tensors of every option.
Tensors made_once(const Graph& graph, const Block& block) {
  Tensors found;
  for (int o : block.forward) {
    if (!graph.tasks[o].once) continue;
    for (int t : graph.tasks[o].outputs) {
      if (!graph.users[t].empty()) found.push_back(t);
    }
  }
  return found;
}

void find_reads(const Graph& graph, Block& block) {
  std::set<int> inside;
  for (int o : block.forward)
    inside.insert(graph.tasks[o].outputs.begin(), graph.tasks[o].outputs.end());
  std::set<int> reads;
  for (int o : block.backward) {
    for (int t : graph.tasks[o].inputs) {
      if (inside.count(t) != 0 && graph.bytes[t] > 0) reads.insert(t);
    }
  }
  block.reads.assign(reads.begin(), reads.end());
}

// What a least cut keeps of a block at a price for bytes; with `with_output` the block's output
// must be made again as well, as in a segment that is run a second time.
Tensors cheapest_to_keep(const Graph& graph, const Block& block, double price, bool with_output) {
  std::map<int, int> node;  // tensor -> node; its maker's node follows the tensors'
  for (int o : block.forward) {
    for (int t : graph.tasks[o].outputs) node.emplace(t, int(node.size()));
  }
  const int tasks = int(node.size()), source = tasks + int(block.forward.size());
  FlowNetwork network(source + 2);
  for (std::size_t i = 0; i < block.forward.size(); ++i) {
    const Task& task = graph.tasks[block.forward[i]];
    const int me = tasks + int(i);
    network.add_edge(me, source + 1,
                     task.once ? FlowNetwork::kEndless : std::int64_t(task.cost * 1024));
    for (int t : task.inputs) {
      if (node.count(t) != 0) network.add_edge(me, node[t], FlowNetwork::kEndless);
    }
    for (int t : task.outputs) {
      const bool kept_by_others = t == block.output;
      const double bytes = double(graph.bytes[t]);
      network.add_edge(node[t], me,
                       kept_by_others ? FlowNetwork::kEndless : std::int64_t(price * bytes * 1024));
      const bool wanted = contains(block.reads, t) || (with_output && t == block.output);
      if (wanted) network.add_edge(source, node[t], FlowNetwork::kEndless);
    }
  }
  network.maximum_flow(source, source + 1);
  Tensors kept;
  for (std::size_t i = 0; i < block.forward.size(); ++i) {
    for (int t : graph.tasks[block.forward[i]].outputs) {
      if (network.on_source_side(node[t]) && !network.on_source_side(tasks + int(i))) {
        kept.push_back(t);
      }
    }
  }
  return kept;
}

// The most bytes while `tasks` run one after the other, less those that were there before and are
// not read for the last time here: `owned` are never counted, `later` are not freed.
Bytes stretch_peak(const Graph& graph, const Runs& tasks, const Tensors& owned,
                   const Tensors& later) {
  std::map<int, int> last;
  for (int at = 0; at < int(tasks.size()); ++at) {
    for (int t : graph.tasks[tasks[at]].inputs) last[t] = at;
  }
  std::set<int> inside(tasks.begin(), tasks.end());
  const auto held = [&](int t) {  // read by somebody else, or kept
    return graph.keep[t] || contains(later, t) ||
           std::any_of(graph.users[t].begin(), graph.users[t].end(), [&](int user) {
             return graph.tasks[user].backward && inside.count(user) == 0;
           });
  };
  std::set<int> live;
  Bytes sum = 0, peak = 0;
  for (const auto& [t, at] : last) {
    if (inside.count(graph.maker[t]) != 0 || contains(owned, t)) continue;
    live.insert(t), sum += graph.bytes[t];
  }
  for (int at = 0; at < int(tasks.size()); ++at) {
    const Task& task = graph.tasks[tasks[at]];
    Bytes saved = 0;
    for (int t : task.outputs) {
      if (!contains(owned, t) && live.insert(t).second) sum += graph.bytes[t];
    }
    for (const Permit& permit : task.permits) {
      const bool dies = last[permit.in] == at && live.count(permit.in) != 0 && !held(permit.in);
      if (dies) saved += std::min(graph.bytes[permit.in], graph.bytes[permit.out]);
    }
    peak = std::max(peak, sum + task.workspace - saved);
    Tensors seen = task.inputs;
    seen.insert(seen.end(), task.outputs.begin(), task.outputs.end());
    for (int t : seen) {
      const auto found = last.find(t);
      const bool done = found == last.end() || found->second <= at;
      if (done && !held(t) && live.erase(t) != 0) sum -= graph.bytes[t];
    }
  }
  return peak;
}

// The tasks of a block, in order, that make `wanted` from its input and `at_hand`.
Runs tasks_to_make(const Graph& graph, const Block& block, const Tensors& wanted,
                   const Tensors& at_hand) {
  std::set<int> missing(wanted.begin(), wanted.end());
  for (int t : at_hand) missing.erase(t);
  Runs tasks;
  for (auto o = block.forward.rbegin(); o != block.forward.rend(); ++o) {
    const Task& task = graph.tasks[*o];
    if (std::none_of(task.outputs.begin(), task.outputs.end(),
                     [&](int t) { return missing.count(t) != 0; })) {
      continue;
    }
    tasks.push_back(*o);
    for (int t : task.inputs) {
      if (t == block.input || graph.bytes[t] == 0 || contains(at_hand, t)) continue;
      missing.insert(t);
    }
  }
  std::reverse(tasks.begin(), tasks.end());
  return tasks;
}

void measure(const Graph& graph, const Block& block, KeepOption& option) {
  option.bytes = 0;
  for (int t : option.tensors) option.bytes += graph.bytes[t];
  const Runs rebuild = tasks_to_make(graph, block, block.reads, option.tensors);
  option.rebuild = cost_of(graph, rebuild);
  Tensors owned = option.tensors;
  if (block.input >= 0) owned.push_back(block.input);
  // In the order in which they are read, so that little is there at a time.
  Runs both;
  std::set<int> done;
  for (int o : block.backward) {
    for (int r : tasks_to_make(graph, block, graph.tasks[o].inputs, option.tensors)) {
      if (std::find(rebuild.begin(), rebuild.end(), r) != rebuild.end() && done.insert(r).second) {
        both.push_back(r);
      }
    }
    both.push_back(o);
  }
  option.backward_peak = stretch_peak(graph, both, owned, {});
  Tensors later = option.tensors;
  if (block.output >= 0) later.push_back(block.output);
  Tensors input;
  if (block.input >= 0) input.push_back(block.input);
  option.forward_peak = stretch_peak(graph, tasks_to_make(graph, block, later, {}), input, later);
}

void find_options(const Graph& graph, Block& block) {
  const Tensors always = made_once(graph, block);
  std::set<Tensors> sets = {joined(always, {})};
  Bytes bytes = 1;
  double cost = 0;
  for (int o : block.forward) {
    bytes += graph.tasks[o].output_bytes;
    cost += graph.tasks[o].cost;
  }
  for (int i = 0; i < kPrices; ++i) {
    const double price = cost / double(bytes) * std::pow(2.0, 0.75 * i - 6);
    for (bool with_output : {false, true}) {
      sets.insert(joined(cheapest_to_keep(graph, block, price, with_output), always));
    }
  }
  for (const Tensors& set : sets) {
    block.options.push_back({set, 0, 0, 0, 0});
    measure(graph, block, block.options.back());
  }
  const auto by_bytes = [](const KeepOption& a, const KeepOption& b) { return a.bytes < b.bytes; };
  std::stable_sort(block.options.begin(), block.options.end(), by_bytes);
  while (block.options.size() > kMostOptions) {  // thin out, but keep both ends
    block.options.erase(block.options.begin() + block.options.size() / 2);
  }
}

}  // namespace

Tensors joined(const Tensors& a, const Tensors& b) {
  Tensors both = a;
  both.insert(both.end(), b.begin(), b.end());
  std::sort(both.begin(), both.end());
  both.erase(std::unique(both.begin(), both.end()), both.end());
  return both;
}

double cost_to_make(const Graph& graph, const Block& block, const Tensors& wanted,
                    const Tensors& at_hand) {
  return cost_of(graph, tasks_to_make(graph, block, wanted, at_hand));
}

std::vector<Block> find_blocks(const Graph& graph, const Runs& order) {
  const auto turn =
      std::find_if(order.begin(), order.end(), [&](int o) { return graph.tasks[o].backward; });
  if (turn == order.end()) return {};
  const Runs backward(turn, order.end());
  std::vector<Block> blocks = cut_forward(graph, Runs(order.begin(), turn));
  if (blocks.size() < 2) return {};
  share_backward(graph, blocks, backward);
  for (Block& block : blocks) {
    find_reads(graph, block);
    find_options(graph, block);
  }
  // All with as many options, so that one number names what a range of blocks keeps.
  std::size_t most = 0;
  for (const Block& block : blocks) most = std::max(most, block.options.size());
  for (Block& block : blocks) block.options.resize(most, block.options.back());
  return blocks;
}

}  // namespace mb::planner
