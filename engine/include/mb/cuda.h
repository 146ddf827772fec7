// CUDA's runtime as this project uses it: every status checked in one place, handles that free
// themselves. For files of libmb_cuda.so only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <type_traits>

#include "mb/error.h"

namespace mb::cuda {

inline void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // forgotten, or the next call would report it once more
  fail(call, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")");
}

// Memory of the current device.
inline std::shared_ptr<void> device_memory(std::size_t bytes) {
  void* block = nullptr;
  check(cudaMalloc(&block, bytes), "cudaMalloc");
  return {block, [](void* address) { cudaFree(address); }};
}

// Memory of the host that copies reach without a detour (page-locked).
inline std::shared_ptr<void> pinned_memory(std::size_t bytes) {
  void* block = nullptr;
  check(cudaMallocHost(&block, bytes), "cudaMallocHost");
  return {block, [](void* address) { cudaFreeHost(address); }};
}

struct DestroyStream {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
using StreamHandle = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, DestroyStream>;

// A stream that does not wait for the default one.
inline StreamHandle make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return StreamHandle(stream);
}

}  // namespace mb::cuda
