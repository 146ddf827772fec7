// Times an instruction on memory of its own: what it costs to run it once more.
#pragma once

#include <string>
#include <vector>

#include "mb/executable.h"

namespace mb {

// What is measured: a kernel with tensors of these types (and any workspace).
struct Measured {
  InstructionSpec instruction;  // its slot numbers are unused
  std::vector<Tensor> inputs, outputs;
  // For each input elements in the order of memory, or null: then random numbers in [-1, 1) for
  // floats, zeros for all others.
  std::vector<const void*> contents;
  std::vector<int> over;  // for each output the input that it is written over, or -1
  bool cold = true;  // the caches hold none of the values; else what they can hold of the last run
};

// Median seconds of a launch. It works on the memory after the scratch block's, which is given
// back: nothing that is loaded notices. Throws Error as the kernel does.
double measure(const Measured& measured, const std::string& device);

}  // namespace mb
