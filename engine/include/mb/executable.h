// A loaded plan: every kernel bound to its addresses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "mb/backend.h"
#include "mb/communicator.h"
#include "mb/kernel.h"

namespace mb {

// The C++ side of megbrain_py/plan.py; see there for the meaning of each field.
struct SlotSpec {
  Tensor type;              // the pointer is unused
  std::string arena;        // "scratch", "state"
  std::int64_t offset = 0;  // bytes in scratch; index into the state blocks
};

struct InstructionSpec {
  std::string kernel;
  std::vector<int> inputs, outputs;  // slot numbers
  int workspace = -1;                // slot number, or none
  int waits_for = -1;                // a wait: the number of the instruction that started the work
  Attrs attrs;
  std::string origin;  // the user's file:line
};

struct PlanSpec {
  std::vector<SlotSpec> slots;
  std::vector<InstructionSpec> instructions;
  std::map<std::string, int> feeds, fetches;  // name -> slot
  std::size_t scratch_bytes = 0;
  std::string device;     // "cpu", "cuda:0"
  std::string agreement;  // what all ranks must have in common; empty: it has no collectives
};

// A parameter or a constant, in the host's memory.
struct StateBlock {
  void* pointer = nullptr;
  std::size_t bytes = 0;
  bool constant = false;
};

// Sees a run from outside: called before and after each instruction, by its index.
struct Observer {
  std::function<void(std::size_t)> before, after;
};

struct RunOptions {
  bool poison = false;   // fill memory with NaN before it is written: finds reads of garbage
  bool profile = false;  // time every instruction
  const Observer* observer = nullptr;
};

// When an instruction ran, in seconds of the monotonic clock (Python's time.perf_counter).
struct Interval {
  double start = 0, end = 0;
};

class Executable {
 public:
  // Checks the plan against memory (every slot inside its block), binds all kernels. `world`: the
  // ranks that its collectives talk to, or null.
  Executable(const PlanSpec& plan, const std::vector<StateBlock>& state,
             std::shared_ptr<Communicator> world);

  // Copies `feeds` in (rows layout), runs, copies the fetches out. No allocation, no Python.
  // On a device with memory of its own all parameters are copied in too, and those that the run
  // has written are copied back.
  void run(const std::map<std::string, Tensor>& feeds, const std::map<std::string, Tensor>& fetches,
           const RunOptions& options);

  std::vector<Interval> times() const;  // of the last profiled run; waits for one that runs
  const Tensor& slot(std::size_t number) const;  // its type and place; on the CPU only

 private:
  struct Step {
    StartAndWait halves;        // `wait` is moved into the plan's wait for it, if there is one
    std::string title;          // "conv2d at train.py:57", for errors; of a wait: its starter's
    std::vector<Tensor> own;    // what it reads and writes
    std::vector<Tensor> fresh;  // outputs and workspace that overlap no input: may be poisoned
    Launch launch{};
    int wait = -1;  // what it starts is pending until this step
  };

  // A slot that the host writes or reads. `host` is where it does so: the slot itself, or, where
  // the device has memory of its own, staging memory in the slot's layout.
  struct Port {
    Tensor slot, host;
  };
  // A state block's copy on a device with memory of its own.
  struct Mirror {
    StateBlock host;
    Memory device;
    bool written = false;  // by an instruction
  };

  void bind_memory(const PlanSpec& plan, const std::vector<StateBlock>& state);
  void bind_ports(const PlanSpec& plan);
  void bind_steps(const PlanSpec& plan);
  Step bind_step(const InstructionSpec& instruction);
  Step bind_wait(const InstructionSpec& instruction);
  void guard_steps();
  void copy_in(const std::map<std::string, Tensor>& feeds);
  void launch_all(const RunOptions& options);
  void launch(std::size_t index, const RunOptions& options, bool wait);
  void copy_out(const std::map<std::string, Tensor>& fetches);
  void settle() noexcept;
  void await_pending() noexcept;

  Backend& backend_;
  std::shared_ptr<Communicator> world_;
  std::string agreement_;
  Memory scratch_, staging_;
  std::vector<Tensor> slots_;
  std::vector<Mirror> mirrors_;
  std::map<std::string, Port> feeds_, fetches_;
  std::vector<Step> steps_;
  std::vector<std::size_t> pending_;  // waits of what was started and not yet waited for
  std::vector<Interval> times_;
  std::size_t scratch_bytes_ = 0;
};

// Bytes of workspace that the kernel asks for with these shapes; 0 when it needs none. Also 0 when
// the device has no such kernel: loading says so, for all instructions of a plan at once.
std::size_t query_workspace(const InstructionSpec& instruction, const std::vector<Tensor>& inputs,
                            const std::vector<Tensor>& outputs, const std::string& device);

}  // namespace mb
