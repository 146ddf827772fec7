// The library's half of mb/library.h. Exactly one file of a library includes it; that file is
// compiled for the lowest instruction set and linked first.
#pragma once

#include "mb/library.h"

#ifndef MB_HEADERS
#error "MB_HEADERS is missing: `megbrain build-op` gives it, CMakeLists.txt shows how it is made"
#endif

// The section of MB_KERNEL's entries; the linker gives its two ends these names.
extern "C" {
[[gnu::visibility("hidden")]] extern const mb::Registration* __start_mb_kernels[];
[[gnu::visibility("hidden")]] extern const mb::Registration* __stop_mb_kernels[];
}

namespace mb {
namespace {
EngineFunctions engine_functions{};
}

int num_threads() { return engine_functions.num_threads(); }

}  // namespace mb

extern "C" {
[[gnu::visibility("default")]] extern const char mb_library_stamp[];
const char mb_library_stamp[] = MB_STAMP;

[[gnu::visibility("default")]] mb::KernelRange mb_library_entry(
    const mb::EngineFunctions& functions) {
  mb::engine_functions = functions;
  return {__start_mb_kernels, __stop_mb_kernels};
}
}
