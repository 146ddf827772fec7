// Load: slots become addresses and kernels become closures. Run: call them in order.
#include "mb/executable.h"

#include <algorithm>
#include <set>
#include <utility>

#include "bind.h"
#include "clock.h"
#include "mb/registry.h"
#include "mb/relayout.h"
#include "round_up.h"
#include "slot_guard.h"
#include "titles.h"

namespace mb {
namespace {

constexpr int kPoison = 0xFF;  // every float32 and float64 made of it is a NaN

bool overlap(const Tensor& a, const Tensor& b) {
  const char* a0 = static_cast<const char*>(a.pointer);
  const char* b0 = static_cast<const char*>(b.pointer);
  return a0 < b0 + b.bytes() && b0 < a0 + a.bytes();
}

// `state`: the blocks as the device sees them.
Tensor place(const SlotSpec& slot, const Memory& scratch, std::size_t scratch_bytes,
             const std::vector<StateBlock>& state) {
  Tensor tensor = slot.type;
  if (slot.arena == "scratch") {
    require(slot.offset >= 0 && std::size_t(slot.offset) + tensor.bytes() <= scratch_bytes,
            "plan: a slot of ", tensor.bytes(), " bytes at offset ", slot.offset,
            " lies outside the scratch arena of ", scratch_bytes, " bytes");
    tensor.pointer = static_cast<char*>(scratch.get()) + slot.offset;
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

void require_kernels(const PlanSpec& plan, Device device) {
  std::set<std::string> missing;
  std::string lines;
  for (const InstructionSpec& instruction : plan.instructions) {
    if (instruction.waits_for >= 0 || has_kernel(instruction.kernel, device)) continue;
    if (missing.insert(instruction.kernel).second) lines += "\n  " + title_of(instruction);
  }
  require(missing.empty(), "no kernel on ", plan.device, " for ", missing.size(),
          " operator(s) of the plan: their files are missing from the build", lines);
}

}  // namespace

std::size_t query_workspace(const InstructionSpec& instruction, const std::vector<Tensor>& inputs,
                            const std::vector<Tensor>& outputs, const std::string& device) {
  num_threads();  // the first call in a thread sets its OpenMP team, for which oneDNN plans
  const Device kind = open_backend(device).device();
  if (!has_kernel(instruction.kernel, kind)) return 0;
  return with_title(title_of(instruction), [&]() -> std::size_t {
    const Kernel& kernel = find_kernel(instruction.kernel, kind);
    if (kernel.workspace == nullptr) return 0;
    return kernel.workspace(Call{instruction.kernel, inputs, outputs, {}, instruction.attrs});
  });
}

Executable::Executable(const PlanSpec& plan, const std::vector<StateBlock>& state,
                       std::shared_ptr<Communicator> world)
    : backend_(open_backend(plan.device)),
      world_(std::move(world)),
      agreement_(plan.agreement),
      scratch_bytes_(plan.scratch_bytes) {
  num_threads();  // see query_workspace
  require_kernels(plan, backend_.device());
  const std::scoped_lock lock(backend_.mutex());
  backend_.use();
  bind_memory(plan, state);
  bind_ports(plan);
  bind_steps(plan);
  times_.assign(steps_.size(), Interval{});
  pending_.reserve(steps_.size());
  backend_.synchronize();  // constants are copied
}

// Gives every slot its address.
void Executable::bind_memory(const PlanSpec& plan, const std::vector<StateBlock>& state) {
  scratch_ = backend_.scratch(scratch_bytes_);
  std::vector<StateBlock> blocks = state;
  if (!backend_.shares_host_memory()) {
    for (StateBlock& block : blocks) {
      Mirror mirror{block, backend_.allocate(block.bytes)};
      if (block.constant) backend_.copy_in(mirror.device.get(), block.pointer, block.bytes);
      block.pointer = mirror.device.get();
      mirrors_.push_back(std::move(mirror));
    }
  }
  slots_.reserve(plan.slots.size());
  for (const SlotSpec& slot : plan.slots) {
    slots_.push_back(place(slot, scratch_, scratch_bytes_, blocks));
  }
}

// Feeds and fetches; their staging memory, where it is needed, is one block.
void Executable::bind_ports(const PlanSpec& plan) {
  std::size_t bytes = 0;
  const auto bind = [&](const std::map<std::string, int>& names,
                        std::map<std::string, Port>& ports) {
    for (const auto& [name, slot] : names) {
      const Tensor& tensor = at(slots_, slot);
      ports[name] = {tensor, tensor};
      bytes += round_up(tensor.bytes());
    }
  };
  bind(plan.feeds, feeds_);
  bind(plan.fetches, fetches_);
  if (backend_.shares_host_memory()) return;
  staging_ = backend_.allocate_staging(bytes);
  char* next = static_cast<char*>(staging_.get());
  for (auto* ports : {&feeds_, &fetches_}) {
    for (auto& [name, port] : *ports) {
      port.host.pointer = next;
      next += round_up(port.slot.bytes());
    }
  }
}

void Executable::bind_steps(const PlanSpec& plan) {
  for (const InstructionSpec& instruction : plan.instructions) {
    steps_.push_back(instruction.waits_for < 0 ? bind_step(instruction) : bind_wait(instruction));
  }
  for (Step& step : steps_) step.launch = at_once(std::move(step.halves));
  if (backend_.shares_host_memory()) guard_steps();
}

// Takes the second half of the step that it waits for.
Executable::Step Executable::bind_wait(const InstructionSpec& instruction) {
  const int started = instruction.waits_for;
  require(std::size_t(started) < steps_.size(), "plan: a wait for instruction ", started,
          " comes before it");
  Step& starter = steps_[std::size_t(started)];
  require(starter.wait < 0 && starter.halves.start, "plan: a wait for instruction ", started,
          ", which is a wait or is waited for already");
  starter.wait = int(steps_.size());
  Launch nothing = [](Stream&) {};
  Step step{{std::move(nothing), {}}, starter.title, starter.own, {}};
  if (starter.halves.wait) step.halves.start = std::exchange(starter.halves.wait, {});
  return step;
}

// With the addresses of all that is pending: other threads may be at work there.
void Executable::guard_steps() {
  std::vector<const Step*> pending;
  for (std::size_t index = 0; index < steps_.size(); ++index) {
    Step& step = steps_[index];
    std::vector<Tensor> own = step.own;
    for (const Step* other : pending) own.insert(own.end(), other->own.begin(), other->own.end());
    step.launch =
        guarded(std::move(step.launch), own, static_cast<char*>(scratch_.get()), scratch_bytes_);
    if (step.wait >= 0) pending.push_back(&step);
    std::erase_if(pending, [&](const Step* other) { return other->wait == int(index); });
  }
}

Executable::Step Executable::bind_step(const InstructionSpec& instruction) {
  const std::vector<Tensor> inputs = gather(slots_, instruction.inputs);
  const std::vector<Tensor> outputs = gather(slots_, instruction.outputs);
  const Tensor workspace = instruction.workspace < 0 ? Tensor{} : at(slots_, instruction.workspace);
  std::vector<Tensor> written = outputs;
  if (instruction.workspace >= 0) written.push_back(workspace);
  Step step;
  step.title = title_of(instruction);
  step.own = inputs;
  step.own.insert(step.own.end(), written.begin(), written.end());
  step.halves = with_title(step.title, [&] {
    const Kernel& kernel = find_kernel(instruction.kernel, backend_.device());
    const Call call{instruction.kernel, inputs,      outputs, workspace,
                    instruction.attrs,  world_.get()};
    const std::size_t given = instruction.workspace < 0 ? 0 : workspace.bytes();
    const std::size_t asked =
        kernel.workspace == nullptr
            ? 0
            : kernel.workspace(Call{call.kernel, inputs, outputs, {}, instruction.attrs});
    require(given >= asked, "the plan gives ", given, " bytes of workspace, the kernel needs ",
            asked);
    return bind_kernel(kernel, call);
  });
  for (const Tensor& tensor : written) {
    const auto is_read = [&](const Tensor& input) { return overlap(tensor, input); };
    if (std::none_of(inputs.begin(), inputs.end(), is_read)) step.fresh.push_back(tensor);
    for (Mirror& mirror : mirrors_) {
      mirror.written = mirror.written || mirror.device.get() == tensor.pointer;
    }
  }
  return step;
}

const Tensor& Executable::slot(std::size_t number) const {
  require(backend_.shares_host_memory(), "the memory of a plan can be looked at on the cpu only");
  return at(slots_, int(number));
}

// `wait`: some devices only queue a launch; to time one, or to say which one failed, wait for it.
void Executable::launch(std::size_t index, const RunOptions& options, bool wait) {
  const Step& step = steps_[index];
  if (options.poison) {
    for (const Tensor& tensor : step.fresh) backend_.fill(tensor.pointer, kPoison, tensor.bytes());
  }
  if (options.profile) times_[index].start = now();
  std::erase(pending_, index);  // also when this wait throws: the work has ended
  with_title(step.title, [&] {
    step.launch(backend_.stream());
    if (step.wait >= 0) pending_.push_back(std::size_t(step.wait));
    if (wait) backend_.synchronize();
  });
  if (options.profile) times_[index].end = now();
}

void Executable::run(const std::map<std::string, Tensor>& feeds,
                     const std::map<std::string, Tensor>& fetches, const RunOptions& options) {
  const std::scoped_lock lock(backend_.mutex());
  backend_.use();
  if (options.poison) backend_.fill(scratch_.get(), kPoison, scratch_bytes_);
  num_threads();  // see query_workspace
  if (world_ != nullptr && !agreement_.empty()) require_agreement(*world_, agreement_);
  try {
    copy_in(feeds);
    launch_all(options);
    copy_out(fetches);
  } catch (...) {
    settle();
    throw;
  }
}

// After an error: nothing that was started may still touch memory.
void Executable::await_pending() noexcept {
  for (const std::size_t wait : pending_) {
    try {
      steps_[wait].launch(backend_.stream());
    } catch (...) {  // the run's own error, which is being reported, came first
    }
  }
  pending_.clear();
}

// After an error: work that is still queued must not meet the next run's.
void Executable::settle() noexcept {
  await_pending();
  try {
    backend_.synchronize();
  } catch (const std::exception&) {  // the run's own error, which is being reported, came first
  }
}

void Executable::copy_in(const std::map<std::string, Tensor>& feeds) {
  for (const auto& [name, port] : feeds_) {
    const auto feed = feeds.find(name);
    require(feed != feeds.end(), "input ", name, " was not fed");
    const Tensor& slot = port.slot;
    require(same_shape(feed->second, slot) && feed->second.dtype == slot.dtype, "input ", name,
            " has another type than the plan's");
    MB_ISA::relayout(feed->second, port.host);
    if (!backend_.shares_host_memory())
      backend_.copy_in(slot.pointer, port.host.pointer, slot.bytes());
  }
  for (const Mirror& mirror : mirrors_) {
    if (mirror.host.constant) continue;
    backend_.copy_in(mirror.device.get(), mirror.host.pointer, mirror.host.bytes);
  }
}

void Executable::launch_all(const RunOptions& options) {
  const bool wait = options.poison || options.profile || options.observer != nullptr;
  if (wait) backend_.synchronize();
  for (std::size_t index = 0; index < steps_.size(); ++index) {
    if (options.observer != nullptr) options.observer->before(index);
    launch(index, options, wait);
    if (options.observer != nullptr) options.observer->after(index);
  }
}

void Executable::copy_out(const std::map<std::string, Tensor>& fetches) {
  if (!backend_.shares_host_memory()) {
    for (const auto& [name, port] : fetches_) {
      backend_.copy_out(port.host.pointer, port.slot.pointer, port.slot.bytes());
    }
    try {
      backend_.synchronize();
    } catch (const std::exception& error) {
      fail("one of ", steps_.size(),
           " instructions failed (MB_POISON=1 says which): ", error.what());
    }
    for (const Mirror& mirror : mirrors_) {  // only now: a failed run leaves the parameters
      if (!mirror.written) continue;
      backend_.copy_out(mirror.host.pointer, mirror.device.get(), mirror.host.bytes);
    }
    backend_.synchronize();
  }
  for (const auto& [name, out] : fetches) {
    const auto port = fetches_.find(name);
    require(port != fetches_.end(), "no output is named ", name);
    MB_ISA::relayout(port->second.host, out);
  }
}

std::vector<Interval> Executable::times() const {
  const std::scoped_lock lock(backend_.mutex());
  return times_;
}

}  // namespace mb
