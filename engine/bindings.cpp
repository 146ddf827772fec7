// The crossing: plans and arrays come in, arrays go out. No operator is named here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <dnnl.hpp>

#include "build_record.h"
#include "mb/backend.h"
#include "mb/communicator.h"
#include "mb/executable.h"
#include "mb/library.h"
#include "mb/measure.h"
#include "mb/parallel.h"
#include "mb/registry.h"
#include "mb/threads.h"

namespace py = pybind11;

namespace mb {
namespace {

DType dtype_of(const py::array& array) {
  return dtype_from_name(array.dtype().attr("name").cast<std::string>());
}

Tensor view_of(const py::array& array) {
  Tensor tensor;
  tensor.dtype = dtype_of(array);
  require(array.ndim() <= kMaxRank, "arrays have at most ", kMaxRank, " dimensions");
  tensor.rank = int(array.ndim());
  for (int axis = 0; axis < tensor.rank; ++axis) tensor.dims[axis] = array.shape(axis);
  tensor.pointer = const_cast<void*>(array.data());
  require((array.flags() & py::array::c_style) != 0, "arrays must be C-contiguous");
  return tensor;
}

// From a TensorType of megbrain_py/dtypes.py.
Tensor type_from_python(const py::handle& type) {
  Tensor tensor;
  tensor.dtype = dtype_from_name(type.attr("dtype").attr("name").cast<std::string>());
  const auto shape = type.attr("shape").cast<std::vector<std::int64_t>>();
  require(shape.size() <= kMaxRank, "tensors have at most ", kMaxRank, " dimensions");
  tensor.rank = int(shape.size());
  require(std::all_of(shape.begin(), shape.end(), [](std::int64_t size) { return size >= 0; }),
          "sizes must not be negative");
  std::copy(shape.begin(), shape.end(), tensor.dims.begin());
  const auto layout = type.attr("layout").cast<std::string>();
  tensor.layout = layout == "channels_last" ? Layout::kChannelsLast : Layout::kRows;
  return tensor;
}

AttrValue attr_from_python(const py::handle& value) {
  if (py::isinstance<py::bool_>(value)) return value.cast<bool>();
  if (py::isinstance<py::int_>(value)) return value.cast<std::int64_t>();
  if (py::isinstance<py::float_>(value)) return value.cast<double>();
  if (py::isinstance<py::str>(value)) return value.cast<std::string>();
  if (!py::isinstance<py::sequence>(value)) throw py::cast_error("no attribute");
  bool whole = true;
  for (const auto& item : value) whole = whole && py::isinstance<py::int_>(item);
  if (whole) return value.cast<std::vector<std::int64_t>>();
  return value.cast<std::vector<double>>();
}

Attrs attrs_from_python(const py::dict& values) {
  Attrs attrs;
  for (const auto& [name, value] : values) {
    try {
      attrs.set(name.cast<std::string>(), attr_from_python(value));
    } catch (const py::cast_error&) {
      fail("attribute ", std::string(py::str(name)), ": kernels cannot read ",
           std::string(py::repr(value)));
    }
  }
  return attrs;
}

InstructionSpec instruction_from_python(const py::handle& instruction) {
  InstructionSpec spec;
  spec.kernel = instruction.attr("kernel").cast<std::string>();
  spec.inputs = instruction.attr("inputs").cast<std::vector<int>>();
  spec.outputs = instruction.attr("outputs").cast<std::vector<int>>();
  const py::object workspace = instruction.attr("workspace");
  spec.workspace = workspace.is_none() ? -1 : workspace.cast<int>();
  const py::object waits_for = instruction.attr("waits_for");
  spec.waits_for = waits_for.is_none() ? -1 : waits_for.cast<int>();
  spec.attrs = attrs_from_python(instruction.attr("attrs"));
  spec.origin = instruction.attr("origin").cast<std::string>();
  return spec;
}

PlanSpec plan_from_python(const py::handle& plan) {
  PlanSpec spec;
  for (const auto& slot : plan.attr("slots")) {
    spec.slots.push_back({type_from_python(slot.attr("type")),
                          slot.attr("arena").cast<std::string>(),
                          slot.attr("offset").cast<std::int64_t>()});
  }
  for (const auto& instruction : plan.attr("instructions")) {
    spec.instructions.push_back(instruction_from_python(instruction));
  }
  spec.feeds = plan.attr("feeds").cast<std::map<std::string, int>>();
  spec.fetches = plan.attr("fetches").cast<std::map<std::string, int>>();
  spec.scratch_bytes = plan.attr("scratch_bytes").cast<std::size_t>();
  spec.device = plan.attr("device").cast<std::string>();
  spec.agreement = plan.attr("agreement").cast<std::string>();
  return spec;
}

std::vector<Tensor> types_from_python(const py::list& types) {
  std::vector<Tensor> tensors;
  for (const auto& type : types) tensors.push_back(type_from_python(type));
  return tensors;
}

std::size_t query(const py::handle& instruction, const py::list& input_types,
                  const py::list& output_types, const std::string& device) {
  return query_workspace(instruction_from_python(instruction), types_from_python(input_types),
                         types_from_python(output_types), device);
}

// `contents`: an array in the order of memory, or None, for each input.
double measure_instruction(const py::handle& instruction, const py::list& inputs,
                           const py::list& outputs, const py::list& contents, std::vector<int> over,
                           bool cold, const std::string& device) {
  Measured measured{instruction_from_python(instruction),
                    types_from_python(inputs),
                    types_from_python(outputs),
                    {},
                    std::move(over),
                    cold};
  for (const auto& array : contents) {
    const Tensor& type = measured.inputs.at(measured.contents.size());
    Tensor given;
    if (!array.is_none()) {
      given = view_of(py::cast<py::array>(array));
      require(given.dtype == type.dtype && given.bytes() == type.bytes(),
              "contents of another type than the input's");
    }
    measured.contents.push_back(given.pointer);
  }
  const py::gil_scoped_release release;
  return measure(measured, device);
}

// The state arrays are kept alive by this object: their addresses are bound into kernels.
class PyExecutable {
 public:
  PyExecutable(const py::handle& plan, std::vector<py::array> state,
               std::shared_ptr<Communicator> world)
      : state_(std::move(state)),
        executable_(load(plan_from_python(plan), blocks(plan, state_), std::move(world))) {}

  // `observer` is None or has before(index) and after(index); it may look at `memory`.
  void run(const py::dict& feeds, const py::dict& fetches, bool poison, bool profile,
           const py::object& observer) {
    const auto in = views(feeds);
    const auto out = views(fetches);
    const Observer watching{calls(observer, "before"), calls(observer, "after")};
    const py::gil_scoped_release release;
    executable_.run(in, out, RunOptions{poison, profile, observer.is_none() ? nullptr : &watching});
  }

  std::vector<std::pair<double, double>> times() const {
    const py::gil_scoped_release release;  // it may wait for a run that ends in Python
    std::vector<std::pair<double, double>> times;
    for (const auto& [start, end] : executable_.times()) times.emplace_back(start, end);
    return times;
  }

  // The elements of a slot in the order of memory: a view, to be read while the plan runs.
  py::array memory(std::size_t number) const {
    const Tensor& slot = executable_.slot(number);
    const py::dtype type{std::string(name_of(slot.dtype))};
    const py::object owner = py::cast(this, py::return_value_policy::reference);
    py::array view(type, {slot.count()}, {}, slot.pointer, owner);
    view.attr("setflags")(py::arg("write") = false);
    return view;
  }

 private:
  // Waits for the arena, whose holder may wait for the GIL to call its observer.
  static Executable load(const PlanSpec& plan, const std::vector<StateBlock>& state,
                         std::shared_ptr<Communicator> world) {
    const py::gil_scoped_release release;
    return Executable(plan, state, std::move(world));
  }
  static std::vector<StateBlock> blocks(const py::handle& plan,
                                        const std::vector<py::array>& state) {
    std::vector<StateBlock> blocks;
    for (const auto& block : plan.attr("state")) {
      const Tensor tensor = view_of(state.at(blocks.size()));
      blocks.push_back({tensor.pointer, tensor.bytes(), block.attr("constant").cast<bool>()});
    }
    return blocks;
  }
  static std::function<void(std::size_t)> calls(const py::object& observer, const char* method) {
    return [&observer, method](std::size_t index) {
      const py::gil_scoped_acquire acquire;
      observer.attr(method)(index);
    };
  }
  static std::map<std::string, Tensor> views(const py::dict& arrays) {
    std::map<std::string, Tensor> views;
    for (const auto& [name, array] : arrays) {
      views[name.cast<std::string>()] = view_of(py::cast<py::array>(array));
    }
    return views;
  }

  std::vector<py::array> state_;
  Executable executable_;
};

// Ranks as Python holds them, for what passes between programs rather than within a plan.
void bind_communicators(py::module_& module) {
  const auto exchange_bytes = [](Communicator& ranks, const std::string& bytes) {
    py::list found;
    const std::vector<std::string> all = [&] {
      const py::gil_scoped_release release;
      return exchange(ranks, bytes);
    }();
    for (const std::string& one : all) found.append(py::bytes(one));
    return found;
  };
  py::class_<Communicator, std::shared_ptr<Communicator>>(module, "Communicator")
      .def_property_readonly("rank", &Communicator::rank)
      .def_property_readonly("size", &Communicator::size)
      .def("exchange", exchange_bytes, py::arg("bytes"))
      .def("abort", &Communicator::abort, py::arg("reason"),
           py::call_guard<py::gil_scoped_release>());
  module.def("make_local", &make_local, py::arg("size"));
  module.def("make_mpi", &make_mpi, py::arg("library"), py::call_guard<py::gil_scoped_release>());
  module.def("finish_mpi", &finish_mpi, py::call_guard<py::gil_scoped_release>());
  module.def("set_collective_limit", &set_collective_limit, py::arg("seconds"));
}

// oneDNN's kernels are held to the level that was forced for ours; it must not have run yet. Its
// answer is not needed: other processors than x86 have no levels.
void limit_onednn(Isa isa) {
  if (isa == Isa::kV4) return;
  const auto most = isa == Isa::kV3 ? dnnl::cpu_isa::avx2 : dnnl::cpu_isa::sse41;
  dnnl::set_max_cpu_isa(most);
}

std::string onednn_version() {
  const dnnl::version_t* version = dnnl::version();
  return std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch);
}

}  // namespace
}  // namespace mb

PYBIND11_MODULE(_engine, module) {
  using namespace mb;
  const auto native_error = py::register_exception<Error>(module, "NativeError");
  py::register_exception<WrongStamp>(module, "WrongStamp", native_error);
  py::class_<PyExecutable>(module, "Executable")
      .def(py::init<py::object, std::vector<py::array>, std::shared_ptr<Communicator>>(),
           py::arg("plan"), py::arg("state"), py::arg("world"))
      .def("run", &PyExecutable::run, py::arg("feeds"), py::arg("fetches"), py::arg("poison"),
           py::arg("profile"), py::arg("observer"))
      .def("times", &PyExecutable::times)
      .def("memory", &PyExecutable::memory, py::arg("slot"));
  bind_communicators(module);
  module.def("query", &query, py::arg("instruction"), py::arg("inputs"), py::arg("outputs"),
             py::arg("device"));
  module.def("measure", &measure_instruction, py::arg("instruction"), py::arg("inputs"),
             py::arg("outputs"), py::arg("contents"), py::arg("over"), py::arg("cold"),
             py::arg("device"));
  module.def("open_device", [](const std::string& device) { open_backend(device); });
  module.def("arena_bytes",
             [](const std::string& device) { return open_backend(device).scratch_size(); });
  module.def("num_threads", &num_threads);
  module.def("set_num_threads", &set_num_threads);
  module.def("set_default_num_threads", &set_default_num_threads);
  module.def("isa", [] { return std::string(isa_name(isa_in_use())); });
  module.def("choose_isa", [](const std::string& name) {
    choose_isa(name);
    limit_onednn(isa_in_use());
  });
  module.def("onednn_version", &onednn_version);
  module.def("kernel_names", [] { return kernel_names(Device::kCpu); });
  module.def("open_library", &open_library, py::arg("path"));
  module.def("build_record", [] {
    using namespace build_record;
    return py::make_tuple(compiler, flags, levels, MB_HEADERS);
  });
}
