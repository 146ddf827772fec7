// The weight gradient of a convolution as matrix products that read the images where they lie
// (implicit GEMM), channels-last.
//
// For each tap of the kernel, dw[o, c] = sum over the output's pixels of dy[pixel, o] * x[the pixel
// that the tap meets, c]. A block of outputs and inputs, with all taps, is one piece of work: its
// sums stay in the second-level cache while it walks over all pixels, kDepth at a time. Each sum
// runs in one order whoever computes it: the results do not depend on the number of threads.
#include <algorithm>

#include "mb/kernel.h"
#include "ops/conv/gemm.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kDepth = 128;   // pixels that are summed from zero: a panel fills half of L1
constexpr std::int64_t kSums = 65536;  // of a block: a quarter of L2
constexpr std::int64_t kWidest = 256;  // outputs, inputs of a block

struct WeightGradient {
  std::int64_t batch, in_height, in_width, out_height, out_width;
  std::int64_t inputs, outputs;  // channels
  std::int64_t rows, columns;    // of the kernel
  std::int64_t stride[2], dilation[2], top, left;
  const float *x, *dy;
  float* dw;

  explicit WeightGradient(const Call& call) {
    const Tensor &from = call.in(0), &gradient = call.in(1), &to = call.out();
    require(call.attrs.integer("groups") == 1, "the kernel is for convolutions of one group");
    require(from.layout == Layout::kChannelsLast && gradient.layout == Layout::kChannelsLast,
            "the kernel needs images in channels_last");
    batch = from.dim(0), inputs = from.dim(1), in_height = from.dim(2), in_width = from.dim(3);
    outputs = gradient.dim(1), out_height = gradient.dim(2), out_width = gradient.dim(3);
    rows = to.dim(2), columns = to.dim(3);
    const auto &s = call.attrs.integers("stride"), &d = call.attrs.integers("dilation");
    std::copy_n(s.begin(), 2, stride);
    std::copy_n(d.begin(), 2, dilation);
    const auto& p = call.attrs.integers("padding");  // top, bottom, left, right
    top = p[0], left = p[2];
    x = from.data<float>(), dy = gradient.data<float>(), dw = to.data<float>();
  }

  std::int64_t taps() const { return rows * columns; }
  std::int64_t pixels() const { return batch * out_height * out_width; }
};

// Which channels make a block, for so many pieces of work at once.
struct Blocks {
  std::int64_t outputs, inputs;        // channels of a block
  std::int64_t out_blocks, in_blocks;  // how many there are

  Blocks(const WeightGradient& g, std::int64_t pieces) {
    inputs = std::min(kWidest, round_up(g.inputs, kPanel));
    outputs = std::min(kWidest, round_up(g.outputs, kPanelRows));
    while (inputs > kPanel && g.taps() * inputs * kPanelRows * 8 > kSums) halve_inputs();
    outputs = std::min(outputs, kSums / (g.taps() * inputs));
    count(g);
    // Blocks for all pieces; small ones read more, so no more than that.
    while (number() % pieces != 0 && number() < 4 * pieces) {
      if (inputs > kPanel && (inputs >= outputs || outputs <= kPanelRows)) {
        halve_inputs();
      } else if (outputs > kPanelRows) {
        outputs = (outputs + 1) / 2;
      } else {
        break;
      }
      count(g);
    }
  }

  std::int64_t number() const { return out_blocks * in_blocks; }

 private:
  void halve_inputs() { inputs = round_up(inputs / 2, kPanel); }
  void count(const WeightGradient& g) {
    out_blocks = (g.outputs + outputs - 1) / outputs;
    in_blocks = (g.inputs + inputs - 1) / inputs;
  }
};

// panel[i, c] = the input that the tap (row, column) meets at output pixel `first` + i, `count` of
// them, for `width` channels; zeros beside the image and up to the vector's end.
void gather_panel(const WeightGradient& g, std::int64_t row, std::int64_t column,
                  std::int64_t first, std::int64_t count, std::int64_t channel, std::int64_t width,
                  float* panel) {
  std::int64_t ox = first % g.out_width, oy = first / g.out_width % g.out_height;
  std::int64_t image = first / (g.out_width * g.out_height);
  const std::int64_t ahead = kDepth * g.stride[1] * g.inputs;
  for (std::int64_t i = 0; i < count; ++i, panel += kPanel) {
    const std::int64_t iy = oy * g.stride[0] + row * g.dilation[0] - g.top;
    const std::int64_t ix = ox * g.stride[1] + column * g.dilation[1] - g.left;
    if (iy >= 0 && iy < g.in_height && ix >= 0 && ix < g.in_width) {
      const float* from = g.x + ((image * g.in_height + iy) * g.in_width + ix) * g.inputs + channel;
      std::int64_t c = 0;
      for (; c + kLanes <= width; c += kLanes) {
        store(panel + c, load(from + c));
        __builtin_prefetch(from + ahead + c);
      }
      if (c < width) store(panel + c, load_part(from + c, width - c));
    } else {
      std::memset(panel, 0, kPanel * sizeof(float));
    }
    if (++ox == g.out_width) {
      ox = 0;
      if (++oy == g.out_height) oy = 0, ++image;
    }
  }
}

// Asks for rows of the next pixels' dy: they lie too far apart for the hardware to see a stream.
void fetch_ahead(const WeightGradient& g, std::int64_t begin, std::int64_t end, std::int64_t output,
                 std::int64_t outputs) {
  for (std::int64_t p = begin; p < std::min(end, g.pixels()); ++p) {
    const float* from = g.dy + p * g.outputs + output;
    for (std::int64_t k = 0; k < outputs; k += 16) __builtin_prefetch(from + k, 0, 2);
  }
}

// sums[tap, o, c] for the channels of a block; rows of sums are `panels` panels long.
void sum_block(const WeightGradient& g, std::int64_t output, std::int64_t outputs,
               std::int64_t input, std::int64_t inputs, float* sums, float* panel) {
  const std::int64_t panels = (inputs + kPanel - 1) / kPanel;
  const std::int64_t turns = g.taps() * panels;
  for (std::int64_t first = 0; first < g.pixels(); first += kDepth) {
    const std::int64_t count = std::min(kDepth, g.pixels() - first);
    const auto multiply = first == 0 ? multiply_panel<false> : multiply_panel<true>;
    for (std::int64_t turn = 0; turn < turns; ++turn) {
      const std::int64_t tap = turn / panels, at = turn % panels * kPanel;
      const std::int64_t width = std::min(kPanel, inputs - at);
      gather_panel(g, tap / g.columns, tap % g.columns, first, count, input + at, width, panel);
      const std::int64_t next = first + kDepth;
      fetch_ahead(g, next + kDepth * turn / turns, next + kDepth * (turn + 1) / turns, output,
                  outputs);
      multiply(outputs, int((width + kLanes - 1) / kLanes), count,
               g.dy + first * g.outputs + output, 1, g.outputs, panel,
               sums + tap * outputs * panels * kPanel + at, panels * kPanel);
    }
  }
}

void write_block(const WeightGradient& g, std::int64_t output, std::int64_t outputs,
                 std::int64_t input, std::int64_t inputs, const float* sums) {
  const std::int64_t row = round_up(inputs, kPanel), taps = g.taps();
  for (std::int64_t o = 0; o < outputs; ++o, sums += row) {
    float* const to = g.dw + ((output + o) * g.inputs + input) * taps;
    if (taps == 1) {
      std::memcpy(to, sums, std::size_t(inputs) * sizeof(float));
      continue;
    }
    for (std::int64_t c = 0; c < inputs; ++c) {
      for (std::int64_t t = 0; t < taps; ++t) to[c * taps + t] = sums[t * outputs * row + c];
    }
  }
}

constexpr std::int64_t kScratch = kSums + kDepth * kPanel;  // floats of a piece of work

std::size_t workspace_weight_gradient(const Call& call) {
  if (call.in(0).count() == 0) return 0;
  return std::size_t(num_threads() * kScratch) * sizeof(float);
}

Launch bind_weight_gradient(const Call& call) {
  const Tensor dw = call.out();
  if (call.in(0).count() == 0) {  // no image: nothing depends on the weights
    return [dw](Stream&) { std::memset(dw.pointer, 0, dw.bytes()); };
  }
  const WeightGradient g(call);
  require(g.taps() * kPanel * kPanelRows <= kSums, "the kernel has too many taps");
  float* const scratch = static_cast<float*>(call.workspace.pointer);
  // As many pieces of work as the plan has memory for: the threads when it was made.
  const std::int64_t pieces = std::int64_t(call.workspace.bytes() / sizeof(float)) / kScratch;
  const Blocks blocks(g, pieces);
  return [=](Stream&) {
    parallel_for(pieces, 1, [&](std::int64_t begin, std::int64_t end) {
      float *const sums = scratch + begin * kScratch, *const panel = sums + kSums;
      const std::int64_t from = blocks.number() * begin / pieces;
      const std::int64_t to = blocks.number() * end / pieces;
      for (std::int64_t block = from; block < to; ++block) {
        const std::int64_t output = block / blocks.in_blocks * blocks.outputs;
        const std::int64_t input = block % blocks.in_blocks * blocks.inputs;
        const std::int64_t outputs = std::min(blocks.outputs, g.outputs - output);
        const std::int64_t inputs = std::min(blocks.inputs, g.inputs - input);
        sum_block(g, output, outputs, input, inputs, sums, panel);
        write_block(g, output, outputs, input, inputs, sums);
      }
    });
  };
}

}  // namespace

MB_KERNEL("conv2d_backward_weights_gemm", Device::kCpu, bind_weight_gradient,
          workspace_weight_gradient)

}  // namespace mb::MB_ISA
