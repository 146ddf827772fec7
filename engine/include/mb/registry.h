// Finds kernels by name, device and the instruction set in use.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "mb/kernel.h"

namespace mb {

// Adds the kernels of a library that was opened while the program runs: all, or none with an Error
// when a name exists. `library` names them in messages.
void add_kernels(const Registration* const* begin, const Registration* const* end,
                 std::string_view library);

const Kernel& find_kernel(std::string_view name, Device device);  // throws Error when absent
std::vector<std::string> kernel_names(Device device);

Isa isa_in_use();                    // chosen once: the CPU's level, or MB_ISA in the environment
std::string_view isa_name(Isa isa);  // "base", "v3", "v4"
void choose_isa(std::string_view name);  // before the first kernel is looked up

}  // namespace mb
