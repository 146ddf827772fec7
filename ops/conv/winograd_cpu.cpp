// Convolution and its data gradient by Winograd's F(4x4, 3x3), channels-last.
//
// The data gradient is the convolution of dy with the flipped weights, input and output channels
// exchanged and paddings 2 - p. Each output depends on its own tile only and its sums run in one
// order: the results do not depend on the number of threads.
//
// Two orders of work. With many tiles, all weights are transformed first, and a thread takes blocks
// of tiles whose transforms stay in its second-level cache. With few tiles, all tiles are
// transformed first, and a thread takes blocks of 64 output channels whose weights it transforms
// into a scratch of its own, 64 input channels at a time, and uses at once.
#include <algorithm>

#include "mb/kernel.h"
#include "ops/conv/gemm.h"
#include "ops/conv/winograd.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kColumns = 64;  // output channels whose products are made together
constexpr std::int64_t kPanels = kColumns / kPanel;
constexpr std::int64_t kWeightChunk = 8;   // input channels whose weights are gathered together
constexpr std::int64_t kWeightsAhead = 8;  // output channels whose weights are asked for ahead
constexpr std::int64_t kLine = 16;         // floats of a line of the cache

// y = conv(x, w), or dx = conv(dy, w'): "inputs" and "outputs" count channels of this convolution.
struct Convolution {
  Tiling tiling;
  std::int64_t inputs, outputs;
  std::int64_t input_step, output_step;  // from channel to channel in w, in floats
  bool flipped;                          // taps are read backwards
  const float *x, *w, *bias;
  float* y;
  bool relu;
};

Tiling tiling_of(const Tensor& x, const Tensor& y, std::int64_t top, std::int64_t left) {
  return {x.dim(0), x.dim(2), x.dim(3), y.dim(2), y.dim(3), top, left};
}

Convolution forward(const Call& call) {
  const Tensor &x = call.in(0), &w = call.in(1), &y = call.out();
  require_winograd(call, w);
  const auto& p = call.attrs.integers("padding");  // top, bottom, left, right
  return {tiling_of(x, y, p[0], p[2]),
          w.dim(1),
          w.dim(0),
          9,
          9 * w.dim(1),
          false,
          x.data<float>(),
          w.data<float>(),
          call.inputs.size() > 2 ? call.in(2).data<float>() : nullptr,
          y.data<float>(),
          call.attrs.has("activation")};  // infer permits only relu
}

Convolution backward_data(const Call& call) {
  const Tensor &dy = call.in(0), &w = call.in(1), &dx = call.out();
  require_winograd(call, w);
  const auto& p = call.attrs.integers("padding");
  return {tiling_of(dy, dx, 2 - p[0], 2 - p[2]),
          w.dim(0),
          w.dim(1),
          9 * w.dim(1),
          9,
          true,
          dy.data<float>(),
          w.data<float>(),
          nullptr,
          dx.data<float>(),
          false};
}

// The workspace and who takes what. Sizes are in floats.
struct Schedule {
  std::int64_t inputs;  // channels, up to full vectors
  std::int64_t block;   // tiles of a block at most
  std::int64_t depth;   // input channels whose weights are transformed and used together
  std::int64_t u_plane, v_plane, m_plane;
  std::int64_t column_blocks;  // blocks of kColumns output channels
  bool tiles_first;
  std::int64_t shared, each;  // for all threads, for each one

  explicit Schedule(const Convolution& c) {
    const std::int64_t tiles = c.tiling.count();
    inputs = round_up(c.inputs, kLanes);
    column_blocks = (c.outputs + kColumns - 1) / kColumns;
    tiles_first = tiles <= kFewTiles && column_blocks > 1;
    const std::int64_t fit = kCache / (kPlanes * (inputs + kColumns)) / kPanelRows * kPanelRows;
    block = std::clamp<std::int64_t>(fit, 2 * kPanelRows, 4 * kPanelRows);
    if (tiles_first) block = tiles;
    block = std::min(block, tiles);
    depth = tiles_first ? std::min(kDepth, c.inputs) : c.inputs;
    u_plane = depth * kPanel + kPlanePad;
    v_plane = block * inputs + kPlanePad;
    m_plane = block * kColumns + kPlanePad;
    const std::int64_t u_block = kPanels * kPlanes * u_plane;
    shared = inputs + (tiles_first ? kPlanes * v_plane : column_blocks * u_block);
    each = kPlanes * m_plane + (tiles_first ? u_block : kPlanes * v_plane);
  }

  static constexpr std::int64_t kFewTiles = 64;
  static constexpr std::int64_t kDepth = 64;       // U of a block in L2
  static constexpr std::int64_t kCache = 200'000;  // floats of a tile block: V and M in L2
};

template <Convolution (*kConvolution)(const Call&)>
std::size_t workspace_winograd(const Call& call) {
  if (call.out().count() == 0) return 0;
  const Schedule s(kConvolution(call));
  return std::size_t(s.shared + num_threads() * s.each) * sizeof(float);
}

// U = G g G^T of one panel of output channels and the input channels [begin, end); u: of `begin`.
void transform_weights(const Convolution& c, std::int64_t panel, std::int64_t begin,
                       std::int64_t end, float* u, std::int64_t u_plane) {
  float taps[kWeightChunk][kTaps * kTaps][kPanel];
  const std::int64_t first = panel * kPanel;
  const std::int64_t width = std::clamp<std::int64_t>(c.outputs - first, 0, kPanel);
  if (width < kPanel) std::memset(taps, 0, sizeof(taps));
  for (std::int64_t n = 0; n < width; ++n) {
    // Output channels lie far apart in w: the hardware sees no stream.
    const float* const later = c.w + (first + n + kWeightsAhead) * c.output_step;
    for (std::int64_t f = 9 * begin; f < 9 * end; f += kLine) __builtin_prefetch(later + f);
    for (std::int64_t i = begin; i < end; ++i) {
      const float* from = c.w + (first + n) * c.output_step + i * c.input_step;
      for (int t = 0; t < 9; ++t) taps[i - begin][c.flipped ? 8 - t : t][n] = from[t];
    }
  }
  for (std::int64_t i = 0; i < end - begin; ++i) {
    for (std::int64_t n = 0; n < width; n += kLanes) {
      along_both_axes<kTaps, kTileIn>(
          weight_line, [&](int a, int b) { return load(&taps[i][kTaps * a + b][n]); },
          [&](int a, int b, Vector v) {
            store(u + (kTileIn * a + b) * u_plane + i * kPanel + n, v);
          });
    }
  }
}

// V = B^T d B of the tiles [begin, end).
void transform_tiles(const Convolution& c, std::int64_t begin, std::int64_t end, const float* zeros,
                     float* v, const Schedule& s) {
  for (std::int64_t t = begin; t < end; ++t, v += s.inputs) {
    const Tile tile(c.tiling, t);
    const Window<kTileIn> from(c.x, tile.image, c.tiling.in_height, c.tiling.in_width, c.inputs,
                               tile.y - c.tiling.top, tile.x - c.tiling.left, zeros);
    for (std::int64_t i = 0; i < c.inputs; i += kLanes) {
      const auto put = [&](int a, int b, Vector value) {
        store(v + (kTileIn * a + b) * s.v_plane + i, value);
      };
      const std::int64_t rest = c.inputs - i;
      if (rest >= kLanes) {
        along_both_axes<kTileIn, kTileIn>(
            input_line, [&](int a, int b) { return load(from.pixel[a][b] + i); }, put);
      } else {
        along_both_axes<kTileIn, kTileIn>(
            input_line, [&](int a, int b) { return load_part(from.pixel[a][b] + i, rest); }, put);
      }
    }
  }
}

// y = A^T m A (+ bias, ReLU) of the tiles [begin, end) and the output channels from `first` on.
void transform_products(const Convolution& c, std::int64_t begin, std::int64_t end,
                        std::int64_t first, const float* m, std::int64_t m_plane) {
  const std::int64_t width = std::min(kColumns, c.outputs - first);
  for (std::int64_t t = begin; t < end; ++t, m += kColumns) {
    const Tile tile(c.tiling, t);
    const std::int64_t rows = c.tiling.out_height - tile.y, columns = c.tiling.out_width - tile.x;
    float* const y =
        c.y +
        ((tile.image * c.tiling.out_height + tile.y) * c.tiling.out_width + tile.x) * c.outputs +
        first;
    for (std::int64_t n = 0; n < width; n += kLanes) {
      const std::int64_t count = std::min(kLanes, width - n);
      const Vector bias = c.bias == nullptr ? Vector{} : load_part(c.bias + first + n, count);
      along_both_axes<kTileIn, kTileOut>(
          output_line, [&](int a, int b) { return load(m + (kTileIn * a + b) * m_plane + n); },
          [&](int a, int b, Vector value) {
            if (a >= rows || b >= columns) return;
            value += bias;
            if (c.relu) value = value < 0 ? Vector{} : value;
            float* const at = y + (a * c.tiling.out_width + b) * c.outputs + n;
            count == kLanes ? store(at, value) : store_part(at, value, count);
          });
    }
  }
}

constexpr int kOutputs = kTileOut * kTileOut;

// Asks for one pixel of each tile's input; i and j count from the first pixel that the tiles above
// and to the left have not read.
void fetch_inputs(const Convolution& c, std::int64_t begin, std::int64_t end, int i, int j) {
  const Tiling& t = c.tiling;
  for (std::int64_t index = begin; index < end; ++index) {
    const Tile tile(t, index);
    const std::int64_t y = tile.y - t.top + i + 2, x = tile.x - t.left + j + 2;
    if (y < 0 || y >= t.in_height || x < 0 || x >= t.in_width) continue;
    const float* const p = c.x + ((tile.image * t.in_height + y) * t.in_width + x) * c.inputs;
    for (std::int64_t n = 0; n < c.inputs; n += kLine) __builtin_prefetch(p + n, 0, 2);
  }
}

// Asks for output (i, j) of each tile, channels from `first` on, to write it.
void fetch_outputs(const Convolution& c, std::int64_t begin, std::int64_t end, std::int64_t first,
                   int i, int j) {
  const Tiling& t = c.tiling;
  const std::int64_t width = std::min(kColumns, c.outputs - first);
  for (std::int64_t index = begin; index < end; ++index) {
    const Tile tile(t, index);
    const std::int64_t y = tile.y + i, x = tile.x + j;
    if (y >= t.out_height || x >= t.out_width) continue;
    float* const p = c.y + ((tile.image * t.out_height + y) * t.out_width + x) * c.outputs + first;
    for (std::int64_t n = 0; n < width; n += kLine) __builtin_prefetch(p + n, 1, 2);
  }
}

// m (+)= V U, plane by plane, for one block of output channels and `depth` input channels;
// meanwhile(plane) fetches ahead.
template <bool kAdd, typename Meanwhile>
void multiply(const Convolution& c, const Schedule& s, std::int64_t tiles, std::int64_t first,
              std::int64_t depth, const float* v, const float* u, float* m,
              const Meanwhile& meanwhile) {
  const std::int64_t width = std::min(kColumns, c.outputs - first);
  for (int plane = 0; plane < kPlanes; ++plane) {
    meanwhile(plane);
    for (std::int64_t n = 0; n < width; n += kPanel) {
      const std::int64_t vectors = (std::min(kPanel, width - n) + kLanes - 1) / kLanes;
      multiply_panel<kAdd>(tiles, int(vectors), depth, v + plane * s.v_plane, s.inputs, 1,
                           u + (n / kPanel * kPlanes + plane) * s.u_plane,
                           m + plane * s.m_plane + n, kColumns);
    }
  }
}

void many_tiles(const Convolution& c, const Schedule& s, float* shared, float* own,
                std::int64_t pieces) {
  const float* const zeros = shared;
  float* const u = shared + s.inputs;
  const std::int64_t u_panel = kPlanes * s.u_plane;
  const std::int64_t chunks = (c.inputs + kWeightChunk - 1) / kWeightChunk;
  const std::int64_t panels = (c.outputs + kPanel - 1) / kPanel;
  parallel_for(panels * chunks, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t panel = i / chunks, at = i % chunks * kWeightChunk;
      transform_weights(c, panel, at, std::min(at + kWeightChunk, c.inputs),
                        u + panel * u_panel + at * kPanel, s.u_plane);
    }
  });
  // As many blocks for each thread, of nearly equal size.
  const std::int64_t tiles = c.tiling.count();
  const std::int64_t blocks = std::min(tiles, round_up((tiles + s.block - 1) / s.block, pieces));
  parallel_for(pieces, 1, [&](std::int64_t first_piece, std::int64_t last_piece) {
    for (std::int64_t piece = first_piece; piece < last_piece; ++piece) {
      float* const v = own + piece * s.each;
      float* const m = v + kPlanes * s.v_plane;
      for (std::int64_t i = blocks * piece / pieces; i < blocks * (piece + 1) / pieces; ++i) {
        const std::int64_t begin = tiles * i / blocks, end = tiles * (i + 1) / blocks;
        transform_tiles(c, begin, end, zeros, v, s);
        for (std::int64_t b = 0; b < s.column_blocks; ++b) {
          // Planes take turns to ask for what the transforms will want from memory.
          const auto fetch = [&](int plane) {
            const int i = plane / kTileOut % kTileOut, j = plane % kTileOut;
            if (plane < kOutputs) {
              fetch_outputs(c, begin, end, b * kColumns, i, j);
            } else if (plane < 2 * kOutputs && b == 0) {
              fetch_inputs(c, end, std::min(tiles, end + s.block), i, j);
            }
          };
          multiply<false>(c, s, end - begin, b * kColumns, c.inputs, v, u + b * kPanels * u_panel,
                          m, fetch);
          transform_products(c, begin, end, b * kColumns, m, s.m_plane);
        }
      }
    }
  });
}

// The weights of one block of output channels and the input channels [begin, end).
void transform_weight_block(const Convolution& c, const Schedule& s, std::int64_t block,
                            std::int64_t begin, std::int64_t end, float* u) {
  for (std::int64_t p = 0; p < kPanels; ++p) {
    for (std::int64_t i = begin; i < end; i += kWeightChunk) {
      transform_weights(c, block * kPanels + p, i, std::min(i + kWeightChunk, end),
                        u + p * kPlanes * s.u_plane + (i - begin) * kPanel, s.u_plane);
    }
  }
}

struct Nothing {
  void operator()(int) const {}
};

void few_tiles(const Convolution& c, const Schedule& s, float* shared, float* own,
               std::int64_t pieces) {
  const float* const zeros = shared;
  float* const v = shared + s.inputs;
  const std::int64_t tiles = c.tiling.count();
  parallel_for(tiles, 1, [&](std::int64_t begin, std::int64_t end) {
    transform_tiles(c, begin, end, zeros, v + begin * s.inputs, s);
  });
  parallel_for(pieces, 1, [&](std::int64_t first_piece, std::int64_t last_piece) {
    for (std::int64_t piece = first_piece; piece < last_piece; ++piece) {
      float* const m = own + piece * s.each;
      float* const u = m + kPlanes * s.m_plane;
      const std::int64_t stop = s.column_blocks * (piece + 1) / pieces;
      for (std::int64_t b = s.column_blocks * piece / pieces; b < stop; ++b) {
        for (std::int64_t i = 0; i < c.inputs; i += s.depth) {
          const std::int64_t end = std::min(i + s.depth, c.inputs);
          transform_weight_block(c, s, b, i, end, u);
          const auto product = i == 0 ? multiply<false, Nothing> : multiply<true, Nothing>;
          product(c, s, tiles, b * kColumns, end - i, v + i, u, m, Nothing());
        }
        transform_products(c, 0, tiles, b * kColumns, m, s.m_plane);
      }
    }
  });
}

template <Convolution (*kConvolution)(const Call&)>
Launch bind_winograd(const Call& call) {
  if (call.out().count() == 0) return [](Stream&) {};
  const Convolution c = kConvolution(call);
  const Schedule s(c);
  float* const shared = static_cast<float*>(call.workspace.pointer);
  // As many pieces of work as the plan has memory for: the threads when it was made.
  const std::int64_t room = std::int64_t(call.workspace.bytes() / sizeof(float)) - s.shared;
  const std::int64_t pieces =
      std::min(room / s.each, s.tiles_first ? s.column_blocks : c.tiling.count());
  return [=](Stream&) {
    std::memset(shared, 0, std::size_t(s.inputs) * sizeof(float));
    (s.tiles_first ? few_tiles : many_tiles)(c, s, shared, shared + s.shared, pieces);
  };
}

}  // namespace

MB_KERNEL("conv2d_winograd", Device::kCpu, bind_winograd<forward>, workspace_winograd<forward>)
MB_KERNEL("conv2d_backward_data_winograd", Device::kCpu, bind_winograd<backward_data>,
          workspace_winograd<backward_data>)

}  // namespace mb::MB_ISA
