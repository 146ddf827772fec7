// What a CUDA kernel file (ops/*/*_cuda.cu) needs: pointers to device memory and launches.
//
// Rules that the tests' PTX interpreter relies on, and partly checks: kernels have names at
// namespace scope, never in an anonymous one; no thread returns before a barrier and no barrier
// stands in divergent code; blocks have a multiple of 32 threads; no inline PTX. Results must not
// depend on timing: no atomics on floats. Every launch names the stream it gets.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>

#include "mb/cuda.h"
#include "mb/kernel.h"
#include "mb/stream.h"

namespace mb {

// Memory of the device: host code can only pass it to a launch, device code can look into it.
template <typename T>
class DevicePointer {
 public:
  explicit DevicePointer(T* address) : address_(address) {}
  __device__ T& operator[](std::int64_t index) const { return address_[index]; }

 private:
  T* address_;
};

// The elements of a slot; T is its element type, const for inputs.
template <typename T>
DevicePointer<T> device_data(const Tensor& tensor) {
  return DevicePointer<T>(tensor.data<std::remove_const_t<T>>());
}

struct Grid {
  dim3 blocks;
  dim3 threads;  // of a block
};

constexpr unsigned kBlock = 256;  // threads

// A thread for each of n items, or fewer that walk over them in steps of `grid_threads()`.
inline Grid grid_over(std::int64_t n) {
  constexpr std::int64_t kMostBlocks = 1 << 16;
  return {dim3(unsigned(std::min(kMostBlocks, (n + kBlock - 1) / kBlock))), dim3(kBlock)};
}

__device__ inline std::int64_t grid_thread() {
  return std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline std::int64_t grid_threads() { return std::int64_t(gridDim.x) * blockDim.x; }

// Starts the kernel; arguments are converted to its parameters. An empty grid has nothing to do.
template <typename... Parameters>
void launch(Stream& stream, const Grid& grid, void (*kernel)(Parameters...),
            std::type_identity_t<Parameters>... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0) return;
  std::array<void*, sizeof...(Parameters)> addresses{static_cast<void*>(&arguments)...};
  cuda::check(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid.blocks, grid.threads,
                               addresses.data(), 0, static_cast<cudaStream_t>(stream.handle)),
              "cudaLaunchKernel");
}

}  // namespace mb
