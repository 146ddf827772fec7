// What a kernel file needs: bind(Call) -> Launch, an optional workspace(Call), MB_KERNEL.
//
// Shapes, attributes and addresses are final when `bind` is called, so it does all preparation
// (descriptors, primitives, tables) once; the Launch it returns only computes. A Launch must not
// allocate, and must write every element of its outputs: memory is reused and starts as garbage.
// Work that shall overlap with other kernels binds to a StartAndWait instead.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "mb/attrs.h"
#include "mb/parallel.h"
#include "mb/tensor.h"

namespace mb {

enum class Device : std::uint8_t { kCpu, kCuda };

class Communicator;  // of all ranks (mb/communicator.h)
class Stream;        // CUDA's stream; nothing on the CPU
using Launch = std::function<void(Stream&)>;

// Work that goes on while other kernels run (a collective, a copy): `start` returns at once, `wait`
// when the outputs are written and nothing touches the call's memory any more. An error of the work
// is thrown by `wait`; after an error that `start` throws there is nothing to wait for. They are
// called in turns, `wait` also after another kernel's error. Its operator has the fact
// `asynchronous`, and the plan an instruction for each of the two.
struct StartAndWait {
  Launch start, wait;
};

struct Call {
  std::string_view kernel;
  std::span<const Tensor> inputs;
  std::span<const Tensor> outputs;
  Tensor workspace;  // uint8, as many bytes as workspace(Call) asked for
  const Attrs& attrs;
  Communicator* world = nullptr;  // null: this program has one rank

  const Tensor& in(std::size_t index) const { return inputs[index]; }
  const Tensor& out(std::size_t index = 0) const { return outputs[index]; }
};

using Bind = Launch (*)(const Call&);
using BindAsynchronous = StartAndWait (*)(const Call&);
using Workspace = std::size_t (*)(const Call&);  // called with null pointers; bytes

struct Kernel {
  constexpr Kernel(Bind bind_, Workspace workspace_ = nullptr)
      : bind(bind_), workspace(workspace_) {}
  constexpr Kernel(BindAsynchronous bind_, Workspace workspace_ = nullptr)
      : bind_asynchronous(bind_), workspace(workspace_) {}

  Bind bind = nullptr;  // one of the two
  BindAsynchronous bind_asynchronous = nullptr;
  Workspace workspace = nullptr;
};

// Levels of the CPU's instruction set, lowest first; kernels of the highest usable one are chosen.
enum class Isa : std::uint8_t { kBase, kV3, kV4 };
inline constexpr std::array<std::string_view, 3> kIsaNames{"base", "v3", "v4"};

consteval Isa isa_of_file(std::string_view name) {
  for (std::size_t isa = 0; isa < kIsaNames.size(); ++isa) {
    if (kIsaNames[isa] == name) return Isa(isa);
  }
  throw "MB_ISA_NAME is not one of kIsaNames";
}

// One line of the kernel table. The lines are constants that the linker collects in a section: no
// code of a kernel file runs at load, when nobody has asked yet what this CPU can do.
struct Registration {
  const char* name;
  Device device;
  Isa isa;
  Kernel kernel;
};

}  // namespace mb

// At the foot of a kernel file, inside its namespace:
//   MB_KERNEL("gelu", Device::kCpu, bind_gelu)
//   MB_KERNEL("conv2d", Device::kCpu, bind_conv2d, workspace_conv2d)
#define MB_CONCAT_INNER(a, b) a##b
#define MB_CONCAT(a, b) MB_CONCAT_INNER(a, b)
#define MB_KERNEL(name, device, ...) MB_KERNEL_AT(__COUNTER__, name, device, __VA_ARGS__)
#define MB_KERNEL_AT(id, name, device, ...)                                                       \
  static constinit const ::mb::Registration MB_CONCAT(mb_registration_, id){                      \
      name, device, ::mb::isa_of_file(MB_ISA_NAME), ::mb::Kernel{__VA_ARGS__}};                   \
  [[gnu::section("mb_kernels"), gnu::used]] static constinit const ::mb::Registration* MB_CONCAT( \
      mb_entry_, id) = &MB_CONCAT(mb_registration_, id);
