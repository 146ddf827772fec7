// What a kernel file needs: bind(Call) -> Launch, an optional workspace(Call), MB_KERNEL.
//
// Shapes, attributes and addresses are final when `bind` is called, so it does all preparation
// (descriptors, primitives, tables) once; the Launch it returns only computes. A Launch must not
// allocate, and must write every element of its outputs: memory is reused and starts as garbage.
#pragma once

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

class Stream;  // CUDA's stream; nothing on the CPU
using Launch = std::function<void(Stream&)>;

struct Call {
  std::string_view kernel;
  std::span<const Tensor> inputs;
  std::span<const Tensor> outputs;
  Tensor workspace;  // uint8, as many bytes as workspace(Call) asked for
  const Attrs& attrs;

  const Tensor& in(std::size_t index) const { return inputs[index]; }
  const Tensor& out(std::size_t index = 0) const { return outputs[index]; }
};

using Bind = Launch (*)(const Call&);
using Workspace = std::size_t (*)(const Call&);  // called with null pointers; bytes

struct Kernel {
  Bind bind = nullptr;
  Workspace workspace = nullptr;
};

// Levels of the CPU's instruction set, lowest first; kernels of the highest usable one are chosen.
enum class Isa : std::uint8_t { kBase, kV3, kV4 };
Isa isa_from_name(std::string_view name);

void register_kernel(std::string_view name, Device device, Isa isa, Kernel kernel);

struct Registration {
  Registration(std::string_view name, Device device, std::string_view isa, Bind bind,
               Workspace workspace = nullptr) {
    register_kernel(name, device, isa_from_name(isa), Kernel{bind, workspace});
  }
};

}  // namespace mb

// At the foot of a kernel file, inside its namespace:
//   MB_KERNEL("gelu", Device::kCpu, bind_gelu)
//   MB_KERNEL("conv2d", Device::kCpu, bind_conv2d, workspace_conv2d)
#define MB_CONCAT_INNER(a, b) a##b
#define MB_CONCAT(a, b) MB_CONCAT_INNER(a, b)
#define MB_KERNEL(name, device, ...)                                                         \
  [[maybe_unused]] static const ::mb::Registration MB_CONCAT(mb_registration_, __COUNTER__)( \
      name, device, MB_ISA_NAME, __VA_ARGS__);
