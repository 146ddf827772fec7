// Static storage allocation for Python: arrays of lower ends, upper ends and sizes.
#include <pybind11/stl.h>

#include <stdexcept>

#include "allocate.h"
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

py::tuple bound_allocate(const Integers& lower, const Integers& upper, const Integers& size,
                         std::int64_t wanted, std::int64_t work) {
  const std::vector<Rectangle> rectangles = rectangles_from(lower, upper, size);
  Allocation allocation;
  {
    py::gil_scoped_release release;
    allocation = allocate(rectangles, wanted, work);
  }
  const std::vector<std::int64_t>& offsets = allocation.offsets;
  return py::make_tuple(Integers(py::ssize_t(offsets.size()), offsets.data()), allocation.height,
                        allocation.optimal);
}

std::pair<int, int> bound_find_overlap(const Integers& lower, const Integers& upper,
                                       const Integers& size, const Integers& offset) {
  const std::vector<Rectangle> rectangles = rectangles_from(lower, upper, size);
  if (offset.size() != size.size()) throw std::invalid_argument("each rectangle needs an offset");
  return find_overlap(rectangles, view(offset));
}

}  // namespace

void bind_offsets(py::module_& module) {
  module.def("max_live", &bound_max_live, py::arg("lower"), py::arg("upper"), py::arg("size"));
  module.def("allocate", &bound_allocate, py::arg("lower"), py::arg("upper"), py::arg("size"),
             py::arg("wanted"), py::arg("work"));
  module.def("find_overlap", &bound_find_overlap, py::arg("lower"), py::arg("upper"),
             py::arg("size"), py::arg("offset"));
}

}  // namespace mb::planner
