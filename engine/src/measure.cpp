// Times single instructions.
#include "mb/measure.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <random>

#include "bind.h"
#include "clock.h"
#include "mb/registry.h"
#include "round_up.h"
#include "titles.h"
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace mb {
namespace {

constexpr std::size_t kCaches = std::size_t{64} << 20;  // more than this, caches do not hold
constexpr int kLeastRuns = 3, kMostRuns = 15;           // after the first, which is not counted
constexpr double kEnough = 0.005, kMost = 0.5;          // seconds of all runs: the usual, the limit

// Random numbers in [-1, 1): a block of them over and over, its length no power of two.
template <typename T>
void fill_with_random(T* data, std::size_t count) {
  constexpr std::size_t kBlock = 100'003;
  std::mt19937 generator;
  const std::size_t made = std::min(count, kBlock);
  for (std::size_t i = 0; i < made; ++i) {
    data[i] = T(std::int32_t(std::uint32_t(generator()))) / T(1u << 31);
  }
  for (std::size_t at = made; at < count; at += made) {
    std::memcpy(data + at, data, std::min(made, count - at) * sizeof(T));
  }
}

void fill(void* host, const Tensor& type, const void* contents) {
  const std::size_t count = std::size_t(type.count());
  if (contents != nullptr) {
    std::memcpy(host, contents, type.bytes());
  } else if (type.dtype == DType::kFloat32) {
    fill_with_random(static_cast<float*>(host), count);
  } else if (type.dtype == DType::kFloat64) {
    fill_with_random(static_cast<double*>(host), count);
  } else {
    std::memset(host, 0, type.bytes());
  }
}

// Memory of one call.
struct Bound {
  Memory memory;
  std::vector<Tensor> inputs, outputs;
  Tensor workspace;
  std::size_t bytes = 0;
};

Bound bind_memory(Backend& backend, const Measured& measured, std::size_t workspace) {
  Bound bound{nullptr, measured.inputs, measured.outputs, Tensor{}, 0};
  bound.workspace.dtype = DType::kUint8;
  bound.workspace.rank = 1;
  bound.workspace.dims[0] = std::int64_t(workspace);
  std::vector<Tensor*> own{&bound.workspace};
  for (Tensor& input : bound.inputs) own.push_back(&input);
  for (std::size_t o = 0; o < bound.outputs.size(); ++o) {
    if (measured.over.at(o) < 0) own.push_back(&bound.outputs[o]);
  }
  for (const Tensor* tensor : own) bound.bytes += round_up(tensor->bytes());
  bound.memory = backend.borrow(bound.bytes);
  char* next = static_cast<char*>(bound.memory.get());
  for (Tensor* tensor : own) {
    tensor->pointer = next;
    next += round_up(tensor->bytes());
  }
  for (std::size_t o = 0; o < bound.outputs.size(); ++o) {
    if (measured.over[o] < 0) continue;
    const Tensor& input = bound.inputs.at(std::size_t(measured.over[o]));
    require(input.bytes() == bound.outputs[o].bytes(), "an output over an input of another size");
    bound.outputs[o].pointer = input.pointer;
  }
  return bound;
}

void fill_input(Backend& backend, const Tensor& input, const void* contents) {
  if (backend.shares_host_memory()) {
    fill(input.pointer, input, contents);
    return;
  }
  const Memory staging = backend.allocate_staging(input.bytes());
  fill(staging.get(), input, contents);
  backend.copy_in(input.pointer, staging.get(), input.bytes());
  backend.synchronize();
}

// Takes the CPU's caches away from a call whose values would fit into them.
void make_cold(const Bound& bound) {
  if (bound.bytes > kCaches) return;
#if defined(__x86_64__)
  const char* const begin = static_cast<const char*>(bound.memory.get());
  for (std::size_t at = 0; at < bound.bytes; at += kCacheLine) _mm_clflush(begin + at);
  _mm_mfence();
#endif
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ptrdiff_t(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double time_runs(Backend& backend, const Measured& measured, const Bound& bound,
                 const Launch& launch) {
  std::vector<double> seconds;
  double spent = 0;
  for (int run = 0; run <= kMostRuns; ++run) {
    if ((run > kLeastRuns && spent > kEnough) || (run > 1 && spent > kMost)) break;
    for (std::size_t i = 0; i < bound.inputs.size(); ++i) {
      const auto over = std::count(measured.over.begin(), measured.over.end(), int(i));
      if (run == 0 || over > 0) fill_input(backend, bound.inputs[i], measured.contents.at(i));
    }
    if (measured.cold && backend.shares_host_memory()) make_cold(bound);
    const double start = now();
    launch(backend.stream());
    backend.synchronize();
    const double took = now() - start;
    spent += took;
    if (run > 0) seconds.push_back(took);
  }
  return median(std::move(seconds));
}

}  // namespace

double measure(const Measured& measured, const std::string& device) {
  Backend& backend = open_backend(device);
  const std::scoped_lock lock(backend.mutex());
  backend.use();
  num_threads();  // see query_workspace
  const InstructionSpec& instruction = measured.instruction;
  return with_title(title_of(instruction), [&] {
    const Kernel& kernel = find_kernel(instruction.kernel, backend.device());
    const auto call = [&](const auto& tensors, const Tensor& workspace) {
      return Call{instruction.kernel, tensors.inputs, tensors.outputs, workspace,
                  instruction.attrs};
    };
    const std::size_t asked =
        kernel.workspace == nullptr ? 0 : kernel.workspace(call(measured, Tensor{}));
    const Bound bound = bind_memory(backend, measured, asked);
    const Launch launch = at_once(bind_kernel(kernel, call(bound, bound.workspace)));
    return time_runs(backend, measured, bound, launch);
  });
}

}  // namespace mb
