// The weight gradient of a convolution by Winograd's F(4x4, 3x3), channels-last.
//
// dw = G^T (sum over tiles of (B^T d B) . (A dy A^T)) G. The tiles are taken in chunks: first the
// threads transform a chunk's tiles of x and dy, then they share out the 36 planes' products. Sums
// run in one order whoever computes them: the results do not depend on the number of threads.
#include <algorithm>

#include "mb/kernel.h"
#include "ops/conv/gemm.h"
#include "ops/conv/winograd.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kDepth = 64;        // tiles that are summed from zero, then added
constexpr std::int64_t kAhead = 4;         // tiles: 36 streams are more than hardware fetches ahead
constexpr std::int64_t kGradientRows = 8;  // input channels whose gradients are written together

struct WeightGradient {
  Tiling tiling;
  std::int64_t inputs, outputs;  // channels
  const float *x, *dy;
  float* dw;
};

WeightGradient weight_gradient(const Call& call) {
  const Tensor &x = call.in(0), &dy = call.in(1), &dw = call.out();
  require_winograd(call, dw);
  const auto& p = call.attrs.integers("padding");  // top, bottom, left, right
  return {{x.dim(0), x.dim(2), x.dim(3), dy.dim(2), dy.dim(3), p[0], p[2]},
          x.dim(1),
          dy.dim(1),
          x.data<float>(),
          dy.data<float>(),
          dw.data<float>()};
}

// Sizes are in floats. Transformed tiles lie as [plane][panel of channels][tile][kPanel], their
// products as [plane][kPanel inputs][kPanel outputs] for each pair of panels.
struct GradientSchedule {
  std::int64_t in_panels, out_panels, pairs;
  std::int64_t chunk;  // tiles at most
  std::int64_t v_plane, s_plane, product_plane;
  bool at_once;  // one chunk: a thread makes all planes of a pair, then their gradient
  std::int64_t zeros, transformed, products;  // one for all; of a chunk; of a pair

  explicit GradientSchedule(const WeightGradient& g) {
    const std::int64_t tiles = g.tiling.count();
    in_panels = (g.inputs + kPanel - 1) / kPanel;
    out_panels = (g.outputs + kPanel - 1) / kPanel;
    pairs = in_panels * out_panels;
    const std::int64_t tile = kPlanes * (in_panels + out_panels) * kPanel;
    at_once = tiles * tile <= kMost && pairs >= 4;
    chunk = at_once ? tiles : std::min(tiles, round_up(kChunk / tile + 1, kDepth));
    v_plane = chunk * in_panels * kPanel + kPlanePad;
    s_plane = chunk * out_panels * kPanel + kPlanePad;
    product_plane = kPanel * kPanel + kPlanePad;
    zeros = std::max(in_panels, out_panels) * kPanel;
    transformed = kPlanes * (v_plane + s_plane);
    products = kPlanes * product_plane;
  }

  std::int64_t floats(std::int64_t threads) const {
    return zeros + transformed + products * (at_once ? std::min(threads, pairs) : pairs);
  }

  static constexpr std::int64_t kChunk = 600'000;   // 2.4 MB: stays in the caches of two threads
  static constexpr std::int64_t kMost = 5'000'000;  // the most for a single chunk
};

// Transforms the tiles [begin, end) of a map, which become numbers [first, ...) of a chunk.
template <int kSide, typename Line>
void transform_map(const Line& line, const Tiling& t, const float* map, std::int64_t height,
                   std::int64_t width, std::int64_t channels, std::int64_t top, std::int64_t left,
                   const float* zeros, std::int64_t begin, std::int64_t end, std::int64_t chunk,
                   float* to, std::int64_t plane) {
  for (std::int64_t index = begin; index < end; ++index, to += kPanel) {
    const Tile tile(t, index);
    const Window<kSide> from(map, tile.image, height, width, channels, tile.y - top, tile.x - left,
                             zeros);
    for (std::int64_t n = 0; n < channels; n += kLanes) {
      float* const at = to + n / kPanel * chunk * kPanel + n % kPanel;
      const auto put = [&](int i, int j, Vector v) {
        float* const to_plane = at + (kTileIn * i + j) * plane;
        store(to_plane, v);
        __builtin_prefetch(to_plane + kAhead * kPanel, 1);
      };
      const std::int64_t rest = channels - n;
      if (rest >= kLanes) {
        along_both_axes<kSide, kTileIn>(
            line, [&](int i, int j) { return load(from.pixel[i][j] + n); }, put);
      } else {
        along_both_axes<kSide, kTileIn>(
            line, [&](int i, int j) { return load_part(from.pixel[i][j] + n, rest); }, put);
      }
    }
  }
}

// One plane of one pair of panels: products (+)= V^T S.
void multiply_pair(const WeightGradient& g, const GradientSchedule& s, std::int64_t in_panel,
                   std::int64_t out_panel, std::int64_t tiles, const float* v, const float* other,
                   float* products, bool first) {
  const std::int64_t rows = std::min(kPanel, g.inputs - in_panel * kPanel);
  const std::int64_t width = std::min(kPanel, g.outputs - out_panel * kPanel);
  const int vectors = int((width + kLanes - 1) / kLanes);
  v += in_panel * s.chunk * kPanel;
  other += out_panel * s.chunk * kPanel;
  for (std::int64_t t = 0; t < tiles; t += kDepth) {
    const auto panel = first && t == 0 ? multiply_panel<false> : multiply_panel<true>;
    panel(rows, vectors, std::min(kDepth, tiles - t), v + t * kPanel, 1, kPanel, other + t * kPanel,
          products, kPanel);
  }
}

// dw = G^T products G for the input channels [begin, end) of a panel.
void write_gradient(const WeightGradient& g, const GradientSchedule& s, std::int64_t in_panel,
                    std::int64_t out_panel, std::int64_t begin, std::int64_t end,
                    const float* products) {
  float taps[kGradientRows][kTaps * kTaps][kPanel];
  const std::int64_t width = std::min(kPanel, g.outputs - out_panel * kPanel);
  for (std::int64_t i = begin; i < end; ++i) {
    for (std::int64_t n = 0; n < width; n += kLanes) {
      along_both_axes<kTileIn, kTaps>(
          weight_gradient_line,
          [&](int a, int b) {
            return load(products + (kTileIn * a + b) * s.product_plane + i * kPanel + n);
          },
          [&](int a, int b, Vector v) { store(&taps[i - begin][kTaps * a + b][n], v); });
    }
  }
  for (std::int64_t n = 0; n < width; ++n) {
    float* to = g.dw + ((out_panel * kPanel + n) * g.inputs + in_panel * kPanel + begin) * 9;
    for (std::int64_t i = 0; i < end - begin; ++i, to += 9) {
      for (int t = 0; t < 9; ++t) to[t] = taps[i][t][n];
    }
  }
}

void transform_chunk(const WeightGradient& g, const GradientSchedule& s, const float* zeros,
                     std::int64_t first, std::int64_t tiles, float* v, float* other) {
  const Tiling& t = g.tiling;
  parallel_for(tiles, 1, [&](std::int64_t begin, std::int64_t end) {
    transform_map<kTileIn>(input_line, t, g.x, t.in_height, t.in_width, g.inputs, t.top, t.left,
                           zeros, first + begin, first + end, s.chunk, v + begin * kPanel,
                           s.v_plane);
    transform_map<kTileOut>(output_gradient_line, t, g.dy, t.out_height, t.out_width, g.outputs, 0,
                            0, zeros, first + begin, first + end, s.chunk, other + begin * kPanel,
                            s.s_plane);
  });
}

void chunk_by_chunk(const WeightGradient& g, const GradientSchedule& s, float* zeros) {
  float* const v = zeros + s.zeros;
  float* const other = v + kPlanes * s.v_plane;
  float* const products = v + s.transformed;
  const std::int64_t tiles = g.tiling.count();
  for (std::int64_t first = 0; first < tiles; first += s.chunk) {
    const std::int64_t count = std::min(s.chunk, tiles - first);
    transform_chunk(g, s, zeros, first, count, v, other);
    parallel_for(kPlanes * s.pairs, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t plane = i / s.pairs, pair = i % s.pairs;
        multiply_pair(g, s, pair / s.out_panels, pair % s.out_panels, count, v + plane * s.v_plane,
                      other + plane * s.s_plane,
                      products + pair * s.products + plane * s.product_plane, first == 0);
      }
    });
  }
  const std::int64_t parts = kPanel / kGradientRows;
  parallel_for(s.pairs * parts, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t pair = i / parts, in_panel = pair / s.out_panels;
      const std::int64_t row = i % parts * kGradientRows;
      const std::int64_t stop = std::min(row + kGradientRows, g.inputs - in_panel * kPanel);
      write_gradient(g, s, in_panel, pair % s.out_panels, row, stop, products + pair * s.products);
    }
  });
}

void all_at_once(const WeightGradient& g, const GradientSchedule& s, float* zeros,
                 std::int64_t pieces) {
  float* const v = zeros + s.zeros;
  float* const other = v + kPlanes * s.v_plane;
  float* const products = v + s.transformed;
  const std::int64_t tiles = g.tiling.count();
  transform_chunk(g, s, zeros, 0, tiles, v, other);
  parallel_for(pieces, 1, [&](std::int64_t first_piece, std::int64_t last_piece) {
    for (std::int64_t piece = first_piece; piece < last_piece; ++piece) {
      float* const own = products + piece * s.products;
      for (std::int64_t p = s.pairs * piece / pieces; p < s.pairs * (piece + 1) / pieces; ++p) {
        const std::int64_t in_panel = p / s.out_panels, out_panel = p % s.out_panels;
        for (int plane = 0; plane < kPlanes; ++plane) {
          multiply_pair(g, s, in_panel, out_panel, tiles, v + plane * s.v_plane,
                        other + plane * s.s_plane, own + plane * s.product_plane, true);
        }
        const std::int64_t rows = std::min(kPanel, g.inputs - in_panel * kPanel);
        for (std::int64_t row = 0; row < rows; row += kGradientRows) {
          write_gradient(g, s, in_panel, out_panel, row, std::min(row + kGradientRows, rows), own);
        }
      }
    }
  });
}

std::size_t workspace_winograd_weights(const Call& call) {
  if (call.in(0).count() == 0) return 0;
  const GradientSchedule s(weight_gradient(call));
  return std::size_t(s.floats(num_threads())) * sizeof(float);
}

Launch bind_winograd_weights(const Call& call) {
  const Tensor dw = call.out();
  if (call.in(0).count() == 0) {  // no image: nothing depends on the weights
    return [dw](Stream&) { std::memset(dw.pointer, 0, dw.bytes()); };
  }
  const WeightGradient g = weight_gradient(call);
  const GradientSchedule s(g);
  float* const zeros = static_cast<float*>(call.workspace.pointer);
  // As many pieces of work as the plan has memory for: the threads when it was made.
  const std::int64_t room = std::int64_t(call.workspace.bytes() / sizeof(float));
  const std::int64_t pieces = (room - s.zeros - s.transformed) / s.products;
  return [=](Stream&) {
    std::memset(zeros, 0, std::size_t(s.zeros) * sizeof(float));
    s.at_once ? all_at_once(g, s, zeros, pieces) : chunk_by_chunk(g, s, zeros);
  };
}

}  // namespace

MB_KERNEL("conv2d_backward_weights_winograd", Device::kCpu, bind_winograd_weights,
          workspace_winograd_weights)

}  // namespace mb::MB_ISA
