// Load: slots become addresses and kernels become closures. Run: call them in order.
#include "mb/executable.h"

#include <chrono>
#include <cstring>

#include "mb/arena.h"
#include "mb/registry.h"
#include "mb/relayout.h"
#include "mb/stream.h"
#include "slot_guard.h"

namespace mb {
namespace {

constexpr int kPoison = 0xFF;  // every float32 and float64 made of it is a NaN

bool overlap(const Tensor& a, const Tensor& b) {
  const char* a0 = static_cast<const char*>(a.pointer);
  const char* b0 = static_cast<const char*>(b.pointer);
  return a0 < b0 + b.bytes() && b0 < a0 + a.bytes();
}

Tensor place(const SlotSpec& slot, std::size_t scratch_bytes,
             const std::vector<StateBlock>& state) {
  Tensor tensor = slot.type;
  if (slot.arena == "scratch") {
    require(slot.offset >= 0 && std::size_t(slot.offset) + tensor.bytes() <= scratch_bytes,
            "plan: a slot of ", tensor.bytes(), " bytes at offset ", slot.offset,
            " lies outside the scratch arena of ", scratch_bytes, " bytes");
    tensor.pointer = Arena::scratch().base() + slot.offset;
    return tensor;
  }
  require(slot.arena == "state", "plan: unknown arena ", slot.arena);
  require(slot.offset >= 0 && std::size_t(slot.offset) < state.size(), "plan: state block ",
          slot.offset, " of ", state.size());
  const StateBlock& block = state[std::size_t(slot.offset)];
  require(tensor.bytes() == block.bytes, "plan: a state slot of ", tensor.bytes(),
          " bytes is bound to a block of ", block.bytes);
  tensor.pointer = block.pointer;
  return tensor;
}

const Tensor& at(const std::vector<Tensor>& tensors, int slot) {
  require(slot >= 0 && std::size_t(slot) < tensors.size(), "plan: slot ", slot, " of ",
          tensors.size());
  return tensors[std::size_t(slot)];
}

std::vector<Tensor> gather(const std::vector<Tensor>& tensors, const std::vector<int>& slots) {
  std::vector<Tensor> picked;
  picked.reserve(slots.size());
  for (int slot : slots) picked.push_back(at(tensors, slot));
  return picked;
}

std::string title_of(const InstructionSpec& instruction) {
  return instruction.kernel + " at " + instruction.origin;
}

// Runs `work`; an exception gets the instruction's name and the user's line.
template <typename Work>
auto with_title(const std::string& title, const Work& work) {
  try {
    return work();
  } catch (const std::exception& error) {
    fail(title, ": ", error.what());
  } catch (...) {  // a kernel from outside of the tree may throw anything
    fail(title, ": an exception without a message");
  }
}

double now() {
  const std::chrono::duration<double> time = std::chrono::steady_clock::now().time_since_epoch();
  return time.count();
}

}  // namespace

std::size_t query_workspace(const InstructionSpec& instruction, const std::vector<Tensor>& inputs,
                            const std::vector<Tensor>& outputs) {
  num_threads();  // the first call in a thread sets its OpenMP team, for which oneDNN plans
  return with_title(title_of(instruction), [&]() -> std::size_t {
    const Kernel& kernel = find_kernel(instruction.kernel, Device::kCpu);
    if (kernel.workspace == nullptr) return 0;
    return kernel.workspace(Call{instruction.kernel, inputs, outputs, {}, instruction.attrs});
  });
}

Executable::Executable(const PlanSpec& plan, const std::vector<StateBlock>& state)
    : scratch_bytes_(plan.scratch_bytes) {
  num_threads();  // see query_workspace
  Arena& arena = Arena::scratch();
  const std::scoped_lock lock(arena.mutex());
  arena.reserve(plan.scratch_bytes);
  slots_.reserve(plan.slots.size());
  for (const SlotSpec& slot : plan.slots) slots_.push_back(place(slot, scratch_bytes_, state));
  for (const auto& [name, slot] : plan.feeds) feeds_[name] = at(slots_, slot);
  for (const auto& [name, slot] : plan.fetches) fetches_[name] = at(slots_, slot);

  for (const InstructionSpec& instruction : plan.instructions) {
    const std::vector<Tensor> inputs = gather(slots_, instruction.inputs);
    const std::vector<Tensor> outputs = gather(slots_, instruction.outputs);
    const Tensor workspace =
        instruction.workspace < 0 ? Tensor{} : at(slots_, instruction.workspace);
    Step step;
    step.title = title_of(instruction);
    std::vector<Tensor> written = outputs;
    if (instruction.workspace >= 0) written.push_back(workspace);
    std::vector<Tensor> own = inputs;
    own.insert(own.end(), written.begin(), written.end());
    step.launch = with_title(step.title, [&] {
      const Kernel& kernel = find_kernel(instruction.kernel, Device::kCpu);
      const Call call{instruction.kernel, inputs, outputs, workspace, instruction.attrs};
      const std::size_t given = instruction.workspace < 0 ? 0 : workspace.bytes();
      const std::size_t asked =
          kernel.workspace == nullptr
              ? 0
              : kernel.workspace(Call{call.kernel, inputs, outputs, {}, instruction.attrs});
      require(given >= asked, "the plan gives ", given, " bytes of workspace, the kernel needs ",
              asked);
      return guarded(kernel.bind(call), own, scratch_bytes_);
    });
    for (const Tensor& tensor : written) {
      const auto is_read = [&](const Tensor& input) { return overlap(tensor, input); };
      if (std::none_of(inputs.begin(), inputs.end(), is_read)) step.fresh.push_back(tensor);
    }
    steps_.push_back(std::move(step));
  }
  times_.assign(steps_.size(), Interval{});
}

const Tensor& Executable::slot(std::size_t number) const { return at(slots_, int(number)); }

void Executable::launch(std::size_t index, Stream& stream, const RunOptions& options) {
  const Step& step = steps_[index];
  if (options.poison) {
    for (const Tensor& tensor : step.fresh) std::memset(tensor.pointer, kPoison, tensor.bytes());
  }
  if (options.profile) times_[index].start = now();
  with_title(step.title, [&] { step.launch(stream); });
  if (options.profile) times_[index].end = now();
}

void Executable::run(const std::map<std::string, Tensor>& feeds,
                     const std::map<std::string, Tensor>& fetches, const RunOptions& options) {
  Arena& arena = Arena::scratch();
  const std::scoped_lock lock(arena.mutex());
  if (options.poison) std::memset(arena.base(), kPoison, scratch_bytes_);
  for (const auto& [name, slot] : feeds_) {
    const auto feed = feeds.find(name);
    require(feed != feeds.end(), "input ", name, " was not fed");
    require(same_shape(feed->second, slot) && feed->second.dtype == slot.dtype, "input ", name,
            " has another type than the plan's");
    MB_ISA::relayout(feed->second, slot);
  }

  num_threads();  // see query_workspace
  Stream stream;
  for (std::size_t index = 0; index < steps_.size(); ++index) {
    if (options.observer != nullptr) options.observer->before(index);
    launch(index, stream, options);
    if (options.observer != nullptr) options.observer->after(index);
  }

  for (const auto& [name, out] : fetches) {
    const auto slot = fetches_.find(name);
    require(slot != fetches_.end(), "no output is named ", name);
    MB_ISA::relayout(slot->second, out);
  }
}

std::vector<Interval> Executable::times() const {
  const std::scoped_lock lock(Arena::scratch().mutex());
  return times_;
}

}  // namespace mb
