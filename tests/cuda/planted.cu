// Kernels with planted bugs, and a right one: what the interpreter must find, and what it must not.
#include <cstring>

#include "mb/device_kernel.h"

namespace mb {

// Sums of 256 numbers a block. With `barrier` false the second half is read too early.
template <bool kBarrier>
__global__ void block_sum(DevicePointer<const float> x, DevicePointer<float> sum) {
  __shared__ float tile[kBlock];
  tile[threadIdx.x] = x[grid_thread()];
  if (kBarrier) __syncthreads();
  if (threadIdx.x < kBlock / 2) {
    const float other = tile[threadIdx.x + kBlock / 2];
    if (threadIdx.x == 0) sum[blockIdx.x] = tile[0] + other;
  }
}

__global__ void out_of_bounds(DevicePointer<float> y) { y[grid_thread() + 4] = 1.0f; }

__global__ void same_place(DevicePointer<float> y) { y[threadIdx.x] = 1.0f; }  // in every block

__global__ void unwritten_shared(DevicePointer<float> y) {
  __shared__ float tile[kBlock];
  if (threadIdx.x < 100) tile[threadIdx.x] = 1.0f;
  __syncthreads();
  y[grid_thread()] = tile[threadIdx.x];
}

__global__ void early_return(DevicePointer<float> y) {
  if (threadIdx.x == 7) return;
  __syncthreads();
  y[grid_thread()] = 1.0f;
}

}  // namespace mb

// Runs one of them, or another mistake, on two blocks over 512 floats; gives the error's text,
// empty for none.
extern "C" [[gnu::visibility("default")]] const char* planted(const char* name) {
  using namespace mb;
  static std::string message;
  message.clear();
  try {
    const auto memory = cuda::device_memory(2 * kBlock * sizeof(float));
    const auto out = cuda::device_memory(2 * kBlock * sizeof(float));
    const auto handle = cuda::make_stream();
    Stream stream;
    stream.handle = handle.get();
    const DevicePointer<const float> x(static_cast<const float*>(memory.get()));
    const DevicePointer<float> y(static_cast<float*>(out.get()));
    const Grid grid = grid_over(2 * kBlock);
    const auto is = [&](const char* other) { return std::strcmp(name, other) == 0; };
    if (is("right")) launch(stream, grid, block_sum<true>, x, y);
    if (is("missing_barrier")) launch(stream, grid, block_sum<false>, x, y);
    if (is("out_of_bounds")) launch(stream, grid, out_of_bounds, y);
    if (is("same_place")) launch(stream, grid, same_place, y);
    if (is("unwritten_shared")) launch(stream, grid, unwritten_shared, y);
    if (is("early_return")) launch(stream, grid, early_return, y);
    if (is("large_block")) launch(stream, Grid{dim3(1), dim3(2048)}, out_of_bounds, y);
    if (is("missing_wait")) {
      const auto host = cuda::pinned_memory(sizeof(float));
      cuda::check(cudaMemsetAsync(out.get(), 0, sizeof(float), handle.get()), "cudaMemsetAsync");
      cuda::check(cudaMemcpyAsync(host.get(), out.get(), sizeof(float), cudaMemcpyDeviceToHost,
                                  handle.get()),
                  "cudaMemcpyAsync");
      const float early = *static_cast<const float*>(host.get());
      cuda::check(cudaStreamSynchronize(handle.get()), "cudaStreamSynchronize");
      fail("read ", early, " before the wait and ", *static_cast<const float*>(host.get()),
           " after it");
    }
    cuda::check(cudaStreamSynchronize(handle.get()), "cudaStreamSynchronize");
  } catch (const std::exception& error) {
    message = error.what();
  }
  return message.c_str();
}
