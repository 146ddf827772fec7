// Static storage allocation for Python: arrays of lower ends, upper ends and sizes.
#include <stdexcept>

#include "bindings.h"
#include "rectangles.h"

namespace py = pybind11;

namespace mb::planner {
namespace {

std::vector<Rectangle> rectangles_from(const Integers& lower, const Integers& upper,
                                       const Integers& size) {
  if (lower.size() != upper.size() || lower.size() != size.size()) {
    throw std::invalid_argument("lower, upper and size must have one length");
  }
  std::vector<Rectangle> rectangles(lower.size());
  for (std::size_t r = 0; r < rectangles.size(); ++r) {
    rectangles[r] = {lower.data()[r], upper.data()[r], size.data()[r]};
  }
  return rectangles;
}

std::int64_t bound_max_live(const Integers& lower, const Integers& upper, const Integers& size) {
  return max_live(rectangles_from(lower, upper, size));
}

}  // namespace

void bind_offsets(py::module_& module) {
  module.def("max_live", &bound_max_live, py::arg("lower"), py::arg("upper"), py::arg("size"));
}

}  // namespace mb::planner
