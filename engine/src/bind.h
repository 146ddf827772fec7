// A kernel of either kind, bound to a call.
#pragma once

#include <utility>

#include "mb/kernel.h"

namespace mb {

// `wait` is empty where all is done when `start` returns.
inline StartAndWait bind_kernel(const Kernel& kernel, const Call& call) {
  if (kernel.bind_asynchronous != nullptr) return kernel.bind_asynchronous(call);
  return {kernel.bind(call), {}};
}

// Both halves in one.
inline Launch at_once(StartAndWait halves) {
  if (!halves.wait) return std::move(halves.start);
  return [start = std::move(halves.start), wait = std::move(halves.wait)](Stream& stream) {
    start(stream);
    wait(stream);
  };
}

}  // namespace mb
