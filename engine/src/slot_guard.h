// With AddressSanitizer a kernel may only touch its own slots: the rest of the arena is poisoned.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "mb/kernel.h"

#ifdef MB_GUARD_SLOTS
#include <sanitizer/asan_interface.h>
#endif

namespace mb {

#ifdef MB_GUARD_SLOTS
// `launch` with all but `own` of the first `bytes` of the scratch arena out of bounds. Only what
// lies between them is touched: `own` holds what threads of asynchronous kernels work on, too.
inline Launch guarded(Launch launch, const std::vector<Tensor>& own, char* base,
                      std::size_t bytes) {
  std::vector<std::pair<std::size_t, std::size_t>> usable, gaps;  // from, to
  for (const Tensor& tensor : own) {
    const char* const begin = static_cast<const char*>(tensor.pointer);
    if (begin < base || begin >= base + bytes) continue;  // a state block
    usable.emplace_back(begin - base, std::size_t(begin - base) + tensor.bytes());
  }
  std::sort(usable.begin(), usable.end());
  usable.emplace_back(bytes, bytes);
  std::size_t at = 0;
  for (const auto& [begin, end] : usable) {
    if (at < begin) gaps.emplace_back(at, begin);
    at = std::max(at, end);
  }
  return [launch = std::move(launch), gaps = std::move(gaps), base](Stream& stream) {
    struct Open {  // after the launch, also when it throws
      const std::vector<std::pair<std::size_t, std::size_t>>& gaps;
      char* base;
      ~Open() {
        for (const auto& [begin, end] : gaps) {
          __asan_unpoison_memory_region(base + begin, end - begin);
        }
      }
    } const open{gaps, base};
    for (const auto& [begin, end] : gaps) __asan_poison_memory_region(base + begin, end - begin);
    launch(stream);
  };
}
#else
inline Launch guarded(Launch launch, const std::vector<Tensor>&, char*, std::size_t) {
  return launch;
}
#endif

}  // namespace mb
