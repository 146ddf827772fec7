// With AddressSanitizer a kernel may only touch its own slots: the rest of the arena is poisoned.
#pragma once

#include <utility>
#include <vector>

#include "mb/kernel.h"

#ifdef MB_GUARD_SLOTS
#include <sanitizer/asan_interface.h>
#endif

namespace mb {

#ifdef MB_GUARD_SLOTS
// `launch` with all but `own` of the scratch arena's first `bytes` out of bounds.
inline Launch guarded(Launch launch, std::vector<Tensor> own, char* base, std::size_t bytes) {
  return [launch = std::move(launch), own = std::move(own), base, bytes](Stream& stream) {
    struct Open {  // after the launch, also when it throws
      char* base;
      std::size_t bytes;
      ~Open() { __asan_unpoison_memory_region(base, bytes); }
    } const open{base, bytes};
    __asan_poison_memory_region(base, bytes);
    for (const Tensor& tensor : own) {
      const char* const begin = static_cast<const char*>(tensor.pointer);
      if (begin < base || begin >= base + bytes) continue;  // a state block
      __asan_unpoison_memory_region(begin, tensor.bytes());
    }
    launch(stream);
  };
}
#else
inline Launch guarded(Launch launch, const std::vector<Tensor>&, char*, std::size_t) {
  return launch;
}
#endif

}  // namespace mb
