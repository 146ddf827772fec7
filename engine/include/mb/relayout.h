// Copies a tensor into another layout: a batched transpose of (channels x pixels) matrices.
#pragma once

#include <cstring>

#include "mb/parallel.h"
#include "mb/tensor.h"
#include "mb/tiles.h"

namespace mb::MB_ISA {

template <typename T>
void relayout_typed(const Tensor& source, const Tensor& destination) {
  const std::int64_t batch = source.dim(0), channels = source.dim(1);
  const std::int64_t pixels = source.dim(2) * source.dim(3);
  const bool to_channels_last = destination.layout == Layout::kChannelsLast;
  const T* from = static_cast<const T*>(source.pointer);
  T* to = static_cast<T*>(destination.pointer);
  // Split pixels as well as the batch, so that one large image uses all threads.
  constexpr std::int64_t kStrip = 64;
  const std::int64_t strips = (pixels + kStrip - 1) / kStrip;
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / (kStrip * channels + 1));
  parallel_for(batch * strips, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      const T* f = from + item / strips * channels * pixels;
      T* t = to + item / strips * channels * pixels;
      const std::int64_t p = item % strips * kStrip, n = std::min(kStrip, pixels - p);
      if (to_channels_last) {
        transpose_strip(t + p * channels, channels, f + p, pixels, n, channels);
      } else {
        transpose_strip(t + p, pixels, f + p * channels, channels, channels, n);
      }
    }
  });
}

// Same shape and element type; layouts may differ (rank 4) or be equal (a plain copy).
inline void relayout(const Tensor& source, const Tensor& destination) {
  const bool plain = source.layout == destination.layout || source.rank != 4;
  if (plain) {
    const char* from = static_cast<const char*>(source.pointer);
    char* to = static_cast<char*>(destination.pointer);
    parallel_for(std::int64_t(source.bytes()), 1 << 18, [&](std::int64_t begin, std::int64_t end) {
      std::memcpy(to + begin, from + begin, std::size_t(end - begin));
    });
    return;
  }
  switch (size_of(source.dtype)) {
    case 1:
      return relayout_typed<std::uint8_t>(source, destination);
    case 4:
      return relayout_typed<std::uint32_t>(source, destination);
    default:
      return relayout_typed<std::uint64_t>(source, destination);
  }
}

}  // namespace mb::MB_ISA
