// The monotonic clock, which is Python's time.perf_counter.
#pragma once

#include <chrono>

namespace mb {

inline double now() {
  const std::chrono::duration<double> time = std::chrono::steady_clock::now().time_since_epoch();
  return time.count();
}

}  // namespace mb
