// The dynamic programme over ranges of blocks and memory.
#pragma once

#include "blocks.h"

namespace mb::planner {

// After Rotor (Beaumont et al. 2020, Herrmann & Pallez 2020), which keeps all or nothing of a
// block, with two changes: a block keeps one of several sets (KeepOption), and a pass that goes
// over blocks only to make a later input may keep such sets too, so that the second pass is
// cheaper.
//   first(i, m): all blocks from i on, whose input is there, with m slots beyond it;
//   again(q, i, l, m): blocks i to i + l - 1 a second time, when set q of each has been kept.
// Both count the forward costs and what backward passes rebuild.
class ChainTable {
 public:
  ChainTable(const Graph& graph, const std::vector<Block>& blocks, Bytes memory, int slots);

  struct Choice {
    int length = 0;  // 0: keep `option` of one block; else: pass over blocks and keep it of each
    int option = 0;
    int rest = 0;  // slots for what follows
    int own = 0;   // slots for the blocks that were passed over
    double cost = kImpossible;
  };

  int blocks() const { return int(costs_.size()); }
  int nominal() const { return nominal_; }  // slots of the memory that was given
  int memory() const { return memory_; }    // slots of the table, somewhat more
  bool feasible(int memory) const { return first(0, memory) < kImpossible; }

  Choice choose_first(int from, int memory) const;
  Choice choose_again(int kept, int from, int length, int memory) const;

 private:
  static constexpr double kImpossible = 1e30;

  struct Costs {  // of a block, in slots; [q][o]: option o when q has been kept
    int input = 0, output = 0;
    std::vector<int> bytes, forward_peak, backward_peak;
    std::vector<double> rebuild, first;
    std::vector<std::vector<double>> again;
    std::vector<std::vector<int>> extra;
    bool operator==(const Costs&) const = default;
  };

  Costs costs_of(const Graph& graph, const Block& block) const;
  int in_slots(Bytes bytes) const;
  double first(int from, int memory) const {
    return memory < 0 ? kImpossible : double(first_[from][memory]);
  }
  double again(int kept, int from, int length, int memory) const {
    return memory < 0 ? kImpossible : double(row(kept, from, length)[memory]);
  }
  const float* row(int kept, int from, int length) const;
  void fill_row(int kept, int from, int length, float* row) const;
  void fill_again();
  void fill_first();

  int nominal_, memory_, window_ = 0, options_ = 0;
  double slot_bytes_;
  bool uniform_ = false;  // all blocks alike: ranges differ by their length only
  std::vector<Costs> costs_;
  std::vector<std::vector<float>> first_;  // [from][memory]
  std::vector<float> again_;               // rows of memory
};

}  // namespace mb::planner
