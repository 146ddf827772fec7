// The module `_planner`: planning on plain integers. It knows no graph, no kernel and no device.
#include "bindings.h"

PYBIND11_MODULE(_planner, module) {
  mb::planner::bind_offsets(module);
  mb::planner::bind_recompute(module);
}
