// A training graph as a chain of blocks: forward tasks between single tensors, and their backward.
#pragma once

#include "timeline.h"

namespace mb::planner {

// What may be kept of a block besides its input, from its forward to its backward pass.
struct KeepOption {
  std::vector<int> tensors;
  Bytes bytes = 0;
  double rebuild = 0;       // cost to make what the backward pass reads, from input and kept
  Bytes forward_peak = 0;   // beyond the block's input, while its tasks run for the first time
  Bytes backward_peak = 0;  // beyond the block's input and what is kept
};

struct Block {
  std::vector<int> forward, backward;  // tasks, in order
  int input = -1, output = -1;         // tensors; the first block has no input
  std::vector<int> reads;              // tensors made inside that the backward pass reads
  std::vector<KeepOption> options;     // the first one keeps as little as may be; by rising bytes
};

// The blocks of `order`, whose tail from the first backward task on is the backward pass; none when
// the forward pass has no single tensors to cut at.
std::vector<Block> find_blocks(const Graph& graph, const Runs& order);

// The tensors of both, sorted.
std::vector<int> joined(const std::vector<int>& a, const std::vector<int>& b);

// Cost of the tasks of `block` that make `wanted` when `at_hand` (and the block's input) are there.
double cost_to_make(const Graph& graph, const Block& block, const std::vector<int>& wanted,
                    const std::vector<int>& at_hand);

}  // namespace mb::planner
