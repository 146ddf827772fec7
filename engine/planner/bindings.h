// What the parts of the module `_planner` share with its bindings.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <span>

namespace mb::planner {

// Arrays of int64, C-contiguous; others are converted.
using Integers =
    pybind11::array_t<std::int64_t, pybind11::array::c_style | pybind11::array::forcecast>;

inline std::span<const std::int64_t> view(const Integers& array) {
  return {array.data(), std::size_t(array.size())};
}

// Each part adds its functions to the module.
void bind_offsets(pybind11::module_& module);
void bind_recompute(pybind11::module_& module);

}  // namespace mb::planner
