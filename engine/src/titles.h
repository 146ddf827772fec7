// Errors carry the instruction and the user's line.
#pragma once

#include <string>

#include "mb/executable.h"

namespace mb {

inline std::string title_of(const InstructionSpec& instruction) {
  return instruction.kernel + " at " + instruction.origin;
}

// Runs `work`; an exception gets the instruction's name and the user's line.
template <typename Work>
auto with_title(const std::string& title, const Work& work) {
  try {
    return work();
  } catch (const std::exception& error) {
    fail(title, ": ", error.what());
  } catch (...) {  // a kernel from outside of the tree may throw anything
    fail(title, ": an exception without a message");
  }
}

}  // namespace mb
