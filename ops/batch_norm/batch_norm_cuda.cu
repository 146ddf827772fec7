// Moments in two stages without atomics: blocks reduce pieces of a channel, then the pieces are
// merged in order. Pieces depend only on the shape, so results do not depend on the device.
#include "mb/channels.h"
#include "mb/device_kernel.h"

namespace mb {

// A tensor around axis 1, as [outer][channels][inner]; the values of a channel are numbered from 0
// to `count` and cut into pieces of `piece`.
struct Pieces {
  std::int64_t channels, inner, count, piece, pieces;
};

inline Pieces pieces_of(const Tensor& x) {
  constexpr std::int64_t kLeast = 4096, kMost = 64;  // values of a piece; pieces of a channel
  const MB_ISA::Channels view = MB_ISA::channels_of(x);
  const std::int64_t count = view.count();
  const std::int64_t wanted = std::clamp<std::int64_t>(count / kLeast, 1, kMost);
  const std::int64_t piece = std::max<std::int64_t>(1, (count + wanted - 1) / wanted);
  return {view.channels, view.inner, count, piece, (count + piece - 1) / piece};
}

struct Moments {
  float count, mean, m2;
};

// Chan's formula.
__device__ Moments merged(const Moments& a, const Moments& b) {
  if (b.count == 0.0f) return a;
  const float count = a.count + b.count;
  const float delta = b.mean - a.mean;
  const float share = b.count / count;
  return {count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * a.count * share};
}

// Block (c, p): piece p of the channels from c * kLanes. Neighbouring threads read neighbouring
// memory: kLanes = 32 channels where inner is 1, else kLanes = 1 and they walk along a plane.
template <int kLanes>
__global__ void moments_of_pieces(DevicePointer<const float> x, Pieces cut,
                                  DevicePointer<float> partial) {
  constexpr int kWalkers = kBlock / kLanes;
  __shared__ Moments tile[kBlock];
  const int lane = threadIdx.x % kLanes, walker = threadIdx.x / kLanes;
  const std::int64_t channel = std::int64_t(blockIdx.x) * kLanes + lane;
  const std::int64_t begin = blockIdx.y * cut.piece;
  const std::int64_t end = channel < cut.channels ? min(cut.count, begin + cut.piece) : begin;

  // Welford over differences from the piece's first value: a mean far from 0 costs no precision.
  const auto at = [&](std::int64_t j) {
    if (kLanes > 1) return j * cut.channels + channel;
    return (j / cut.inner * cut.channels + channel) * cut.inner + j % cut.inner;
  };
  const float first = begin < end ? x[at(begin)] : 0.0f;
  Moments own{0.0f, 0.0f, 0.0f};
  for (std::int64_t j = begin + walker; j < end; j += kWalkers) {
    const float value = x[at(j)] - first;
    const float delta = value - own.mean;
    own.count += 1.0f;
    own.mean += delta / own.count;
    own.m2 += delta * (value - own.mean);
  }
  tile[threadIdx.x] = own;
  __syncthreads();
  for (int half = kWalkers / 2; half > 0; half /= 2) {
    if (walker < half) {
      tile[threadIdx.x] = merged(tile[threadIdx.x], tile[threadIdx.x + half * kLanes]);
    }
    __syncthreads();
  }
  if (walker == 0 && channel < cut.channels) {
    const std::int64_t to = 2 * blockIdx.y * cut.channels + channel;
    partial[to] = first + tile[lane].mean;
    partial[to + cut.channels] = tile[lane].m2;
  }
}

// One thread a channel; in double, as on the CPU. Without values both moments are 0.
__global__ void merge_pieces(DevicePointer<const float> partial, Pieces cut,
                             DevicePointer<float> mean, DevicePointer<float> m2) {
  for (std::int64_t c = grid_thread(); c < cut.channels; c += grid_threads()) {
    double n = 0.0, m = 0.0, s = 0.0;
    for (std::int64_t p = 0; p < cut.pieces; ++p) {
      const std::int64_t from = 2 * p * cut.channels + c;
      const double add = double(min(cut.piece, cut.count - p * cut.piece));
      const double share = add / (n + add);
      const double delta = partial[from] - m;
      m += delta * share;
      s += partial[from + cut.channels] + delta * delta * n * share;
      n += add;
    }
    mean[c] = float(m);
    m2[c] = float(s);
  }
}

namespace {

std::size_t workspace_moments(const Call& call) {
  const Pieces cut = pieces_of(call.in(0));
  return std::size_t(cut.pieces * cut.channels) * 2 * sizeof(float);
}

Launch bind_moments(const Call& call) {
  const Pieces cut = pieces_of(call.in(0));
  const auto x = device_data<const float>(call.in(0));
  const auto mean = device_data<float>(call.out(0)), m2 = device_data<float>(call.out(1));
  auto* const workspace = static_cast<float*>(call.workspace.pointer);
  const DevicePointer<float> partial(workspace);
  const DevicePointer<const float> pieces(workspace);
  return [=](Stream& stream) {
    const bool planes = cut.inner > 1;
    const unsigned tiles = unsigned(planes ? cut.channels : (cut.channels + 31) / 32);
    const Grid grid{dim3(tiles, unsigned(cut.pieces)), dim3(kBlock)};
    launch(stream, grid, planes ? moments_of_pieces<1> : moments_of_pieces<32>, x, cut, partial);
    launch(stream, grid_over(cut.channels), merge_pieces, pieces, cut, mean, m2);
  };
}

}  // namespace

MB_KERNEL("channel_moments", Device::kCuda, bind_moments, workspace_moments)

}  // namespace mb
