// Schedules under a budget for Python: graphs as lists of integers, schedules as lists of runs.
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>

#include "bindings.h"
#include "bound.h"
#include "chain.h"
#include "evict.h"
#include "evict_search.h"
#include "exact.h"
#include "order.h"
#include "refine.h"
#include "timeline.h"

namespace py = pybind11;

namespace mb::planner {
namespace {

using Ints = std::vector<int>;

// Tasks come as tuples (cost, workspace, inputs, outputs, permits, backward, once).
using TaskTuple =
    std::tuple<double, Bytes, Ints, Ints, std::vector<std::pair<int, int>>, bool, bool>;

Graph graph_from(std::vector<Bytes> bytes, const Ints& base, const Ints& keep,
                 const std::vector<TaskTuple>& tasks) {
  Graph graph;
  graph.bytes = std::move(bytes);
  graph.keep.assign(graph.bytes.size(), 0);
  graph.maker.assign(graph.bytes.size(), -1);
  graph.users.resize(graph.bytes.size());
  std::vector<char> is_base(graph.bytes.size(), 0);
  for (int t : base) {
    is_base.at(t) = 1;
    graph.base_bytes += graph.bytes[t];
  }
  for (int t : keep) graph.keep.at(t) = !is_base.at(t);
  for (const auto& [cost, workspace, inputs, outputs, permits, backward, once] : tasks) {
    const int number = graph.task_count();
    Task task{cost, workspace, {}, outputs, {}, 0, 0, backward, once};
    for (int t : inputs) {
      if (is_base.at(t)) continue;
      task.inputs.push_back(t);
      graph.users[t].push_back(number);
    }
    for (int t : outputs) {
      graph.maker.at(t) = number;
      task.output_bytes += graph.bytes[t];
    }
    for (const auto& [out, in] : permits) {
      if (is_base.at(in)) {
        task.base_relief += std::min(graph.bytes[in], graph.bytes[out]);
      } else {
        task.permits.push_back({out, in});
      }
    }
    graph.tasks.push_back(std::move(task));
  }
  return graph;
}

// A negative task is no run but means: free tensor -1 - task. Takes follow as their outputs.
std::vector<std::tuple<bool, int, Ints>> events(const Graph& graph, const Runs& runs) {
  const Timeline line = timeline(graph, runs);
  std::vector<Ints> taken(runs.size()), freed(runs.size());
  for (const Life& life : line.lives) {
    if (graph.keep[life.tensor] && life.last == int(runs.size()) - 1) continue;
    freed[life.last].push_back(life.tensor);
  }
  for (const Take& take : line.takes) {
    taken[take.at].push_back(take.out);
    std::erase(freed[take.at], take.in);
  }
  std::vector<std::tuple<bool, int, Ints>> result;
  for (std::size_t at = 0; at < runs.size(); ++at) {
    result.emplace_back(true, runs[at], taken[at]);
    for (int t : freed[at]) result.emplace_back(false, t, Ints{});
  }
  return result;
}

const char* name_of(Proof proof) {
  switch (proof) {
    case Proof::kOptimal:
      return "optimal";
    case Proof::kInfeasible:
      return "infeasible";
    case Proof::kGaveUp:
      break;
  }
  return "gave up";
}

}  // namespace

void bind_recompute(py::module_& module) {
  using namespace py::literals;
  const auto released = py::call_guard<py::gil_scoped_release>();
  py::class_<Graph>(module, "Graph")
      .def(py::init(&graph_from), "sizes"_a, "base"_a, "keep"_a, "tasks"_a)
      .def("cost", &Graph::cost);
  module.def("events", &events, "graph"_a, "runs"_a);
  module.def("peak", &peak_of, "graph"_a, "runs"_a, released);
  module.def("cost", &cost_of, "graph"_a, "runs"_a, released);
  module.def(
      "least_peak_bound",
      [](const Graph& graph) {
        const Floor floor = least_peak_bound(graph);
        return std::make_tuple(floor.bytes, floor.task);
      },
      "graph"_a);
  module.def(
      "slice_bound",
      [](const Graph& graph, Bytes budget, int slices, int price_steps) {
        const Bound bound = slice_bound(graph, budget, slices, price_steps);
        return std::make_tuple(bound.cost, bound.feasible, bound.task);
      },
      "graph"_a, "budget"_a, "slices"_a, "price_steps"_a, released);
  module.def(
      "order", [](const Graph& graph, int rule) { return order_by(graph, OrderRule(rule)); },
      "graph"_a, "rule"_a, released);
  module.def("lower_peak", &lower_peak, "graph"_a, "order"_a, "enough"_a, "tries"_a, released);
  module.def("chain", &plan_chain, "graph"_a, "order"_a, "budget"_a, "slots"_a, released);
  module.def("evict_search", &evict_search, "graph"_a, "orders"_a, "budget"_a, "start"_a, "work"_a,
             released);
  module.def("fill_gaps", &fill_gaps, "graph"_a, "runs"_a, "budget"_a, released);
  module.def(
      "slice_cut",
      [](const Graph& graph, int task, double price) { return slice_cut(graph, task, price); },
      "graph"_a, "task"_a, "price"_a, released);
  module.def("fullest_slice", &fullest_slice, "graph"_a, released);
  module.def(
      "exact",
      [](const Graph& graph, Bytes budget, std::int64_t max_states, double cutoff) {
        const Exact found = exact(graph, budget, max_states, cutoff);
        return std::make_tuple(name_of(found.proof), found.runs, found.cost_bound);
      },
      "graph"_a, "budget"_a, "max_states"_a, "cutoff"_a, released);
}

}  // namespace mb::planner
