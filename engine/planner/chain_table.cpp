#include "chain_table.h"

#include <algorithm>
#include <cmath>

namespace mb::planner {
namespace {

constexpr double kMostSteps = 1e9;  // of filling the table
constexpr double kMostEntries = 1e8;

// row[m] = min(row[m], cost + rest[m - used]) for m from `least` on.
void take_better(float* row, int least, int most, float cost, const float* rest, int used) {
  for (int m = least; m <= most; ++m) row[m] = std::min(row[m], cost + rest[m - used]);
}

// The same with two parts, each with its own share of the memory.
void take_better_sum(float* row, int least, int most, float cost, const float* rest, int used,
                     const float* own, int taken) {
  for (int m = least; m <= most; ++m) {
    row[m] = std::min(row[m], cost + rest[m - used] + own[m - taken]);
  }
}

}  // namespace

ChainTable::ChainTable(const Graph& graph, const std::vector<Block>& blocks, Bytes memory,
                       int slots) {
  slot_bytes_ = memory <= slots ? 1 : double(memory) / slots;
  nominal_ = int(double(memory) / slot_bytes_);
  memory_ = nominal_ + nominal_ / 4;
  options_ = int(blocks.front().options.size());
  for (const Block& block : blocks) costs_.push_back(costs_of(graph, block));
  Bytes gradients = 0;  // to keep, of later blocks: there when a block's backward pass runs
  for (int b = int(blocks.size()) - 1; b >= 0; --b) {
    for (int& peak : costs_[b].backward_peak) peak += in_slots(gradients);
    for (int o : blocks[b].backward) {
      for (int t : graph.tasks[o].outputs) gradients += graph.keep[t] ? graph.bytes[t] : 0;
    }
  }
  uniform_ = std::all_of(costs_.begin(), costs_.end(), [&](const Costs& c) {
    return c.bytes == costs_[0].bytes && c.rebuild == costs_[0].rebuild &&
           c.first == costs_[0].first && c.again == costs_[0].again &&
           c.backward_peak == costs_[0].backward_peak &&
           (c.output == costs_[0].output || &c == &costs_.back());
  });
  const double ranges = (uniform_ ? 1.0 : double(blocks.size())) * options_ * (memory_ + 1);
  for (window_ = 1; window_ < int(blocks.size()); ++window_) {
    const double next = window_ + 1;
    if (ranges * next > kMostEntries || ranges * next * (next / 2 + 6) > kMostSteps) break;
  }
  again_.assign(std::size_t(ranges) * window_, float(0));
  fill_again();
  fill_first();
}

int ChainTable::in_slots(Bytes bytes) const {
  return int(std::lround(double(bytes) / slot_bytes_));
}

ChainTable::Costs ChainTable::costs_of(const Graph& graph, const Block& block) const {
  Costs costs;
  const auto size = [&](int t) { return t < 0 ? 0 : in_slots(graph.bytes[t]); };
  costs.input = size(block.input), costs.output = size(block.output);
  std::vector<int> out;
  if (block.output >= 0) out.push_back(block.output);
  for (const KeepOption& o : block.options) {
    costs.bytes.push_back(in_slots(o.bytes));
    costs.forward_peak.push_back(in_slots(o.forward_peak));
    costs.backward_peak.push_back(in_slots(o.backward_peak));
    costs.rebuild.push_back(o.rebuild);
    costs.first.push_back(cost_to_make(graph, block, joined(out, o.tensors), {}));
  }
  for (const KeepOption& q : block.options) {
    costs.again.emplace_back();
    costs.extra.emplace_back();
    for (const KeepOption& o : block.options) {
      const std::vector<int> both = joined(q.tensors, o.tensors);
      Bytes bytes = 0;
      for (int t : both) bytes += graph.bytes[t];
      costs.again.back().push_back(cost_to_make(graph, block, joined(out, both), q.tensors));
      costs.extra.back().push_back(in_slots(bytes - q.bytes));
    }
  }
  return costs;
}

const float* ChainTable::row(int kept, int from, int length) const {
  const std::size_t start = uniform_ ? 0 : std::size_t(from);
  return &again_[((start * options_ + kept) * window_ + (length - 1)) * (memory_ + 1)];
}

ChainTable::Choice ChainTable::choose_again(int kept, int from, int length, int memory) const {
  Choice best;
  const Costs& c = costs_[from];
  if (length == 1) {
    if (memory >= c.backward_peak[kept]) best.cost = c.rebuild[kept];
    return best;
  }
  for (int o = kept; o < int(c.bytes.size()); ++o) {
    const int extra = c.extra[kept][o], rest = memory - extra - c.output;
    if (memory < extra + c.backward_peak[o] || rest < 0) continue;
    const double cost = c.again[kept][o] + c.rebuild[o] + again(kept, from + 1, length - 1, rest);
    if (cost < best.cost) best = {0, o, rest, 0, cost};
  }
  double passed = 0;
  for (int l = 1; l < length; ++l) {
    const Costs& last = costs_[from + l - 1];
    passed += last.again[kept][kept];
    const int rest = memory - last.output;
    const double cost =
        passed + again(kept, from + l, length - l, rest) + again(kept, from, l, memory);
    if (cost < best.cost) best = {l, kept, rest, memory, cost};
  }
  return best;
}

// The same as choose_again for every amount of memory at once.
void ChainTable::fill_row(int kept, int from, int length, float* row) const {
  std::fill(row, row + memory_ + 1, float(kImpossible));
  const Costs& c = costs_[from];
  if (length == 1) {
    const int least = std::min(c.backward_peak[kept], memory_ + 1);
    std::fill(row + least, row + memory_ + 1, float(c.rebuild[kept]));
    return;
  }
  for (int o = kept; o < options_; ++o) {
    const int used = c.extra[kept][o] + c.output;
    const int least = std::max(c.extra[kept][o] + c.backward_peak[o], used);
    const float cost = float(c.again[kept][o] + c.rebuild[o]);
    take_better(row, least, memory_, cost, this->row(kept, from + 1, length - 1), used);
  }
  double passed = 0;
  for (int l = 1; l < length; ++l) {
    const int output = costs_[from + l - 1].output;
    passed += costs_[from + l - 1].again[kept][kept];
    take_better_sum(row, output, memory_, float(passed), this->row(kept, from + l, length - l),
                    output, this->row(kept, from, l), 0);
  }
}

void ChainTable::fill_again() {
  const int starts = uniform_ ? 1 : blocks();
  for (int length = 1; length <= window_; ++length) {
    for (int from = 0; from < starts && from + length <= blocks(); ++from) {
      for (int kept = 0; kept < options_; ++kept) {
        fill_row(kept, from, length, const_cast<float*>(row(kept, from, length)));
      }
    }
  }
}

ChainTable::Choice ChainTable::choose_first(int from, int memory) const {
  Choice best;
  const Costs& c = costs_[from];
  for (int o = 0; o < int(c.bytes.size()); ++o) {
    const int rest = memory - c.bytes[o] - c.output;
    if (memory < c.bytes[o] + c.backward_peak[o] || memory < c.forward_peak[o]) continue;
    const double cost = c.first[o] + c.rebuild[o] + first(from + 1, rest);
    if (cost < best.cost) best = {0, o, rest, 0, cost};
  }
  for (int q = 0; q < options_; ++q) {
    double passed = 0;
    int kept = 0;
    for (int l = 1; l <= window_ && from + l < blocks(); ++l) {
      const Costs& last = costs_[from + l - 1];
      passed += last.first[q];
      kept += last.bytes[q];
      const int own = memory - kept, rest = own - last.output;
      if (rest < 0) break;
      const double cost = passed + again(q, from, l, own) + first(from + l, rest);
      if (cost < best.cost) best = {l, q, rest, own, cost};
    }
  }
  return best;
}

void ChainTable::fill_first() {
  first_.assign(costs_.size() + 1, std::vector<float>(std::size_t(memory_) + 1, 0));
  for (int from = blocks() - 1; from >= 0; --from) {
    float* row = first_[from].data();
    std::fill(row, row + memory_ + 1, float(kImpossible));
    const Costs& c = costs_[from];
    for (int o = 0; o < options_; ++o) {
      const int used = c.bytes[o] + c.output;
      const int least = std::max({c.bytes[o] + c.backward_peak[o], c.forward_peak[o], used});
      const float cost = float(c.first[o] + c.rebuild[o]);
      take_better(row, least, memory_, cost, first_[from + 1].data(), used);
    }
    for (int q = 0; q < options_; ++q) {
      double passed = 0;
      int kept = 0;
      for (int l = 1; l <= window_ && from + l < blocks(); ++l) {
        const Costs& last = costs_[from + l - 1];
        passed += last.first[q];
        kept += last.bytes[q];
        take_better_sum(row, kept + last.output, memory_, float(passed), first_[from + l].data(),
                        kept + last.output, this->row(q, from, l), kept);
      }
    }
  }
}

}  // namespace mb::planner
