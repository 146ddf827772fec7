// Elementwise programs, tile by tile: a tile of every value stays in the first cache.
//
// A full operand is read where it lies, a scalar is handed on as one element; any other broadcast
// operand is first spread into a tile of its own. The steps between the inputs and the output write
// tiles of a small stack buffer, shared by values that do not live together.
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "ops/fused/steps.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kTile = 1024;  // elements: 4 KiB of floats, a dozen of tiles in the cache
constexpr int kMaxInputs = 8;         // as Fused.max_inputs
constexpr int kMaxSteps = 16;         // as Fused.max_steps
constexpr int kMaxBuffers = kMaxInputs + kMaxSteps;
constexpr int kNone = -1;

// Not a multiple of 4 KiB apart: a load must not look like a store that is still on its way.
struct alignas(64) Buffer {
  std::array<std::byte, kTile * sizeof(float) + 320> bytes;
};

struct Input {
  const char* data = nullptr;
  std::int64_t size = 0;  // bytes of an element
  std::int64_t step = 1;  // 0: a scalar
  bool spreads = false;   // into `buffer`, along `loop` over (output, input)
  bool repeats = false;   // every row of the loop is the same
  int buffer = kNone;
  Loop<2> loop;
};

struct BoundStep {
  RunStep run = nullptr;
  int reads = 0;
  std::array<int, kReads> values{};  // which values it reads
  int buffer = kNone;                // kNone: writes the output
  Values numbers{};
};

struct Program {
  std::vector<Input> inputs;
  std::vector<BoundStep> steps;
  char* y = nullptr;
  std::int64_t size = 0;  // bytes of an element of y
  std::int64_t count = 0;
  std::int64_t tile = kTile;
};

template <typename T>
void spread_typed(const Loop<2>& loop, const T* x, std::int64_t begin, std::int64_t n, T* to) {
  while (n > 0) {
    const std::int64_t at = begin % loop.length;
    const std::int64_t piece = std::min(n, loop.length - at);
    const T* from = x + loop.row(begin / loop.length)[1] + at * loop.step[1];
    if (loop.step[1] == 0) {
      std::fill_n(to, piece, *from);
    } else {
      map_row(to, from, piece, loop.step[1], [](T v) { return v; });
    }
    to += piece;
    begin += piece;
    n -= piece;
  }
}

void spread(const Input& input, std::int64_t begin, std::int64_t n, void* to) {
  if (input.size == 1) {
    const auto* x = reinterpret_cast<const std::uint8_t*>(input.data);
    return spread_typed(input.loop, x, begin, n, static_cast<std::uint8_t*>(to));
  }
  const auto* x = reinterpret_cast<const float*>(input.data);
  spread_typed(input.loop, x, begin, n, static_cast<float*>(to));
}

void run_tiles(const Program& program, std::int64_t first, std::int64_t last) {
  std::array<Buffer, kMaxBuffers> buffers;  // only those in use are ever touched
  std::array<Operand, kMaxInputs + kMaxSteps> values;
  std::array<std::int64_t, kMaxInputs> held;  // which part of its row a repeating input holds
  held.fill(kNone);
  const int inputs = int(program.inputs.size());
  for (std::int64_t tile = first; tile < last; ++tile) {
    const std::int64_t begin = tile * program.tile;
    const std::int64_t n = std::min(program.tile, program.count - begin);
    for (int k = 0; k < inputs; ++k) {
      const Input& input = program.inputs[k];
      if (!input.spreads) {
        values[k] = {input.data + begin * input.step * input.size, input.step};
        continue;
      }
      void* to = buffers[input.buffer].bytes.data();
      const std::int64_t part = input.repeats ? begin % input.loop.length : kNone;
      // A shorter tile comes last, so what is held is long enough.
      if (part == kNone || part != held[k]) spread(input, begin, n, to);
      held[k] = part;
      values[k] = {to, 1};
    }
    int value = inputs;
    for (const BoundStep& step : program.steps) {
      Operands operands;
      for (int r = 0; r < step.reads; ++r) operands[r] = values[step.values[r]];
      void* y = step.buffer == kNone ? static_cast<void*>(program.y + begin * program.size)
                                     : buffers[step.buffer].bytes.data();
      step.run(y, operands, n, step.numbers);
      values[value++] = {y, 1};
    }
  }
}

Input bind_input(const Tensor& x, const Tensor& y) {
  Input input;
  input.data = static_cast<const char*>(x.pointer);
  input.size = std::int64_t(size_of(x.dtype));
  if (same_shape(x, y) && x.layout == y.layout) return input;
  if (x.count() == 1) {
    input.step = 0;
    return input;
  }
  input.loop = make_loop<2>({y, x});
  input.spreads = input.repeats = true;
  for (int axis = 0; axis < input.loop.rank; ++axis) {
    input.repeats = input.repeats && input.loop.strides[1][axis] == 0;
  }
  return input;
}

// Hands out tile buffers; a value's buffer is free again after its last reader.
class Buffers {
 public:
  int take() {
    if (free_.empty()) return used_++;
    const int buffer = free_.back();
    free_.pop_back();
    return buffer;
  }
  void give_back(int buffer) { free_.push_back(buffer); }

 private:
  std::vector<int> free_;
  int used_ = 0;
};

// The steps: their functions, and a buffer for each value that is not in memory.
void bind_steps(const Call& call, Program& program) {
  std::istringstream names(call.attrs.text("names"));
  const auto& reads = call.attrs.integers("reads");
  const std::vector<double> numbers = call.attrs.reals("values");
  const int inputs = int(program.inputs.size());
  const int steps = int(numbers.size()) / kValues;
  require(inputs <= kMaxInputs && steps >= 1 && steps <= kMaxSteps, "a program of ", inputs,
          " inputs and ", steps, " steps");
  require(reads.size() == std::size_t(steps * kReads), "a program of ", steps, " steps reads ",
          reads.size(), " values");
  std::vector<int> last(std::size_t(inputs + steps), kNone);
  for (int r = 0; r < int(reads.size()); ++r) {
    const int step = r / kReads;
    require(reads[r] >= kNone && reads[r] < inputs + step, "step ", step, " reads value ",
            reads[r]);
    if (reads[r] != kNone) last[reads[r]] = step;
  }
  Buffers buffers;
  for (Input& input : program.inputs) {
    if (input.spreads) input.buffer = buffers.take();
  }
  std::vector<DType> types;
  std::vector<int> owned(std::size_t(inputs), kNone);  // buffers of the steps' values
  for (const Tensor& x : call.inputs) types.push_back(x.dtype);
  for (int s = 0; s < steps; ++s) {
    BoundStep step;
    std::array<DType, kReads> in{};
    for (int r = 0; r < kReads && reads[s * kReads + r] != kNone; ++r) {
      step.values[r] = int(reads[s * kReads + r]);
      in[r] = types[step.values[r]];
      ++step.reads;
    }
    for (int v = 0; v < kValues; ++v) step.numbers[v] = float(numbers[s * kValues + v]);
    std::string name;
    names >> name;
    const StepKind& kind = find_step(name, {in.data(), std::size_t(step.reads)});
    step.run = kind.run;
    if (s + 1 < steps) step.buffer = buffers.take();
    for (int r = 0; r < step.reads; ++r) {  // after `take`: no step writes what it reads
      int& buffer = owned[step.values[r]];
      if (last[step.values[r]] == s && buffer != kNone) {
        buffers.give_back(std::exchange(buffer, kNone));
      }
    }
    types.push_back(kind.out);
    owned.push_back(step.buffer);
    program.steps.push_back(step);
  }
  require(types.back() == call.out().dtype, "the last step gives ", name_of(types.back()));
}

Launch bind_fused(const Call& call) {
  auto program = std::make_shared<Program>();
  const Tensor& y = call.out();
  program->y = static_cast<char*>(y.pointer);
  program->size = std::int64_t(size_of(y.dtype));
  program->count = y.count();
  for (const Tensor& x : call.inputs) program->inputs.push_back(bind_input(x, y));
  bind_steps(call, *program);
  for (const Input& input : program->inputs) {  // tiles of whole rows: one spreading serves all
    if (!input.repeats || input.loop.length > kTile) continue;
    program->tile = kTile / input.loop.length * input.loop.length;
    break;
  }
  constexpr std::int64_t kGrain = 16384;  // elements that are worth waking a thread
  const std::int64_t tiles = (program->count + program->tile - 1) / program->tile;
  return [program, tiles](Stream&) {
    parallel_for(tiles, std::max<std::int64_t>(1, kGrain / program->tile),
                 [&](std::int64_t first, std::int64_t last) { run_tiles(*program, first, last); });
  };
}

}  // namespace

MB_KERNEL("fused", Device::kCpu, bind_fused)

}  // namespace mb::MB_ISA
