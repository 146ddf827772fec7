#include "chain.h"

#include <algorithm>
#include <limits>

#include "blocks.h"
#include "chain_table.h"
#include "refine.h"

namespace mb::planner {
namespace {

constexpr std::size_t kMostRuns = 60;  // times the number of tasks

// Writes the runs that the table's decisions stand for. What is resident follows from `have_`; the
// lifetimes, and so the true peak, follow from the runs alone (timeline.h).
class Writer {
 public:
  Writer(const Graph& graph, const std::vector<Block>& blocks, const ChainTable& table)
      : graph_(graph),
        blocks_(blocks),
        table_(table),
        have_(graph.bytes.size(), 0),
        ran_(graph.tasks.size(), 0) {}

  Runs write(int memory) {
    first_pass(0, memory);
    return is_long() || !allowed_ ? Runs{} : tidy(graph_, runs_);
  }

 private:
  // With next to no memory a chain needs the square of its length: nobody wants such a schedule.
  bool is_long() const { return runs_.size() > kMostRuns * graph_.tasks.size(); }

  void make(int t) {
    if (have_[t] || is_long()) return;
    const int o = graph_.maker[t];
    for (int input : graph_.tasks[o].inputs) make(input);
    run(o);
  }

  void run(int o) {
    const Task& task = graph_.tasks[o];
    allowed_ = allowed_ && !(task.once && ran_[o]);
    ran_[o] = 1;
    runs_.push_back(o);
    for (int out : task.outputs) have_[out] = 1;
  }

  // What must be there at the end, such as a token of an update, though no later block reads it.
  void make_kept(const Block& block) {
    for (int o : block.forward) {
      for (int t : graph_.tasks[o].outputs) {
        if (graph_.keep[t] && !ran_[o]) make(t);
      }
    }
  }

  void forget(const Block& block) {
    for (int o : block.forward) {
      for (int t : graph_.tasks[o].outputs) {
        const bool stays = graph_.tasks[o].once || graph_.bytes[t] == 0;
        if (t != block.output && !stays) have_[t] = 0;
      }
    }
  }

  // Makes the block's output; of the inside stays what is in `first` and `second`.
  void forward(int b, int first, int second) {
    const Block& block = blocks_[b];
    if (block.output >= 0) make(block.output);
    std::vector<int> stay;
    for (int option : {first, second}) {
      for (int t : block.options[option].tensors) {
        make(t);
        stay.push_back(t);
      }
    }
    make_kept(block);
    forget(block);
    for (int t : stay) have_[t] = 1;
  }

  void forward_range(int from, int to, int option) {
    for (int b = from; b < to; ++b) {
      forward(b, option, option);
      if (b > from) have_[blocks_[b].input] = 0;
    }
  }

  void backward(int b) {
    const Block& block = blocks_[b];
    for (int o : block.backward) {
      for (int t : graph_.tasks[o].inputs) make(t);
      run(o);
    }
    forget(block);
    if (block.output >= 0) have_[block.output] = 0;
  }

  void first_pass(int from, int memory) {
    while (from < table_.blocks()) {
      const ChainTable::Choice choice = table_.choose_first(from, memory);
      if (choice.length == 0) {
        forward(from, choice.option, choice.option);
        first_pass(from + 1, choice.rest);
        backward(from);
        return;
      }
      forward_range(from, from + choice.length, choice.option);
      first_pass(from + choice.length, choice.rest);
      again(choice.option, from, choice.length, choice.own);
      return;
    }
  }

  void again(int kept, int from, int length, int memory) {
    if (is_long()) return;
    if (length == 1) return backward(from);
    const ChainTable::Choice choice = table_.choose_again(kept, from, length, memory);
    if (choice.length == 0) {
      forward(from, kept, choice.option);
      again(kept, from + 1, length - 1, choice.rest);
      backward(from);
      return;
    }
    forward_range(from, from + choice.length, kept);
    again(kept, from + choice.length, length - choice.length, choice.rest);
    again(kept, from, choice.length, memory);
  }

  const Graph& graph_;
  const std::vector<Block>& blocks_;
  const ChainTable& table_;
  std::vector<char> have_, ran_;
  bool allowed_ = true;  // nothing runs a second time that must not
  Runs runs_;
};

}  // namespace

Runs plan_chain(const Graph& graph, const Runs& order, Bytes budget, int slots) {
  const std::vector<Block> blocks = find_blocks(graph, order);
  if (blocks.empty() || budget <= graph.base_bytes) return {};
  const ChainTable table(graph, blocks, budget - graph.base_bytes, slots);
  // The table counts in slots and knows neighbours roughly: the most memory that it may believe in
  // is found by trying, on the true peak.
  Runs best;
  double cost = std::numeric_limits<double>::infinity();
  const auto fits = [&](int memory) {
    if (!table.feasible(memory)) return false;
    Runs runs = Writer(graph, blocks, table).write(memory);
    if (runs.empty() || peak_of(graph, runs) > budget) return false;
    const double found = cost_of(graph, runs);
    if (found < cost) best = std::move(runs), cost = found;
    return true;
  };
  int low = 0, high = table.memory() + 1;
  for (int middle = table.nominal(); high - low > 1; middle = (low + high) / 2) {
    (fits(middle) || !table.feasible(middle) ? low : high) = middle;
  }
  if (best.empty()) return {};
  return fill_gaps(graph, std::move(best), budget);
}

}  // namespace mb::planner
