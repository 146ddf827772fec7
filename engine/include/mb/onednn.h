// Runs of oneDNN primitives over fixed addresses, with all their scratch memory in the workspace.
#pragma once

#if !__has_include(<dnnl.hpp>)
#error "mb/onednn.h is for rooms inside the tree: oneDNN's headers are not shipped with the package"
#endif

#include <cstring>
#include <dnnl.hpp>
#include <memory>
#include <utility>
#include <vector>

#include "mb/kernel.h"

namespace mb::MB_ISA {

inline const dnnl::engine& onednn_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

inline const dnnl::stream& onednn_stream() {
  static const dnnl::stream stream(onednn_engine());
  return stream;
}

// Scratch memory is the plan's, so that the peak it states is exact.
inline dnnl::primitive_attr onednn_attr() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

inline dnnl::memory::desc onednn_desc(const dnnl::memory::dims& dims,
                                      dnnl::memory::format_tag tag) {
  return dnnl::memory::desc(dims, dnnl::memory::data_type::f32, tag);
}

inline dnnl::memory::desc onednn_desc(const dnnl::memory::dims& dims,
                                      const dnnl::memory::dims& strides) {
  return dnnl::memory::desc(dims, dnnl::memory::data_type::f32, strides);
}

// A short program of primitives. It is built twice by the same code: for `workspace(Call)` with
// null addresses, where only bytes() counts, and for `bind(Call)`. Creating a primitive again is
// cheap: oneDNN keeps them in a cache.
class OneDnnProgram {
 public:
  explicit OneDnnProgram(void* workspace) : workspace_(static_cast<char*>(workspace)) {}

  dnnl::memory at(const dnnl::memory::desc& desc, const void* pointer) {
    return dnnl::memory(desc, onednn_engine(), const_cast<void*>(pointer));
  }

  // A piece of the workspace.
  dnnl::memory take(const dnnl::memory::desc& desc) {
    char* const pointer = workspace_ == nullptr ? nullptr : workspace_ + taken_;
    taken_ += aligned(desc.get_size());
    return at(desc, pointer);
  }

  template <typename PrimitiveDesc>
  void add(const PrimitiveDesc& desc, const dnnl::primitive& primitive,
           std::vector<std::pair<int, dnnl::memory>> arguments) {
    const dnnl::memory::desc scratchpad = desc.scratchpad_desc();
    scratch_ = std::max(scratch_, aligned(scratchpad.get_size()));
    steps_.push_back({primitive, scratchpad, std::move(arguments), {}});
  }

  // `memory` in the format `want`: itself, or a copy in the workspace.
  dnnl::memory reordered(const dnnl::memory& memory, const dnnl::memory::desc& want) {
    if (memory.get_desc() == want) return memory;
    const dnnl::memory copy = take(want);
    reorder(memory, copy);
    return copy;
  }

  void reorder(const dnnl::memory& from, const dnnl::memory& to) {
    const dnnl::reorder::primitive_desc desc(onednn_engine(), from.get_desc(), onednn_engine(),
                                             to.get_desc(), onednn_attr());
    add(desc, dnnl::reorder(desc), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
  }

  std::size_t bytes() const { return taken_ + scratch_; }

  Launch launch() && {
    char* const scratch = workspace_ == nullptr ? nullptr : workspace_ + taken_;
    for (Step& step : steps_) {
      if (step.scratchpad.get_size() > 0) {
        step.arguments.emplace_back(DNNL_ARG_SCRATCHPAD, at(step.scratchpad, scratch));
      }
      for (const auto& [name, memory] : step.arguments) step.raw.push_back({name, memory.get()});
    }
    // The C interface: the C++ one would build its argument table, on the heap, in each run.
    const auto steps = std::make_shared<const std::vector<Step>>(std::move(steps_));
    return [steps](Stream&) {
      for (const Step& step : *steps) {
        dnnl::error::wrap_c_api(dnnl_primitive_execute(step.primitive.get(), onednn_stream().get(),
                                                       int(step.raw.size()), step.raw.data()),
                                "oneDNN could not run a primitive");
      }
    };
  }

 private:
  struct Step {
    dnnl::primitive primitive;
    dnnl::memory::desc scratchpad;
    std::vector<std::pair<int, dnnl::memory>> arguments;
    std::vector<dnnl_exec_arg_t> raw;
  };

  static std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

  char* workspace_;
  std::size_t taken_ = 0, scratch_ = 0;
  std::vector<Step> steps_;
};

// For MB_KERNEL: a function that builds a OneDnnProgram, as `bind` and as `workspace`.
template <OneDnnProgram (*Build)(const Call&)>
Launch bind_onednn(const Call& call) {
  return Build(call).launch();
}

template <OneDnnProgram (*Build)(const Call&)>
std::size_t workspace_onednn(const Call& call) {
  return Build(call).bytes();
}

}  // namespace mb::MB_ISA
