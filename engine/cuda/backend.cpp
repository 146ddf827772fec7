// The CUDA backend: one stream, memory of one device, copies through page-locked memory.
#include "mb/backend.h"

#include <algorithm>
#include <string>

#include "mb/cuda.h"

// The section of MB_KERNEL's entries; the linker gives its two ends these names.
extern "C" {
[[gnu::visibility("hidden")]] extern const mb::Registration* __start_mb_kernels[];
[[gnu::visibility("hidden")]] extern const mb::Registration* __stop_mb_kernels[];
}

namespace mb::cuda {
namespace {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(int index) : Backend(Device::kCuda), index_(index) {
    CudaBackend::use();
    handle_ = make_stream();
    stream_.handle = handle_.get();
  }

  void use() override { check(cudaSetDevice(index_), "cudaSetDevice"); }

  // Addresses are bound into loaded plans, so a block never grows: a larger plan gets a new one,
  // and the old one is freed when the last plan that was bound to it is.
  Memory scratch(std::size_t bytes) override {
    Memory block = scratch_.lock();
    if (block == nullptr || bytes > scratch_bytes_) {
      block = allocate(bytes);
      scratch_ = block;
      scratch_bytes_ = bytes;
    }
    return block;
  }
  Memory allocate(std::size_t bytes) override {
    return device_memory(std::max<std::size_t>(bytes, 1));
  }
  Memory allocate_staging(std::size_t bytes) override {
    return pinned_memory(std::max<std::size_t>(bytes, 1));
  }

  void copy_in(void* device, const void* host, std::size_t bytes) override {
    check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, handle_.get()),
          "cudaMemcpyAsync to the device");
  }
  void copy_out(void* host, const void* device, std::size_t bytes) override {
    check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, handle_.get()),
          "cudaMemcpyAsync to the host");
  }
  void fill(void* device, int byte, std::size_t bytes) override {
    check(cudaMemsetAsync(device, byte, bytes, handle_.get()), "cudaMemsetAsync");
  }
  void synchronize() override {
    check(cudaStreamSynchronize(handle_.get()), "cudaStreamSynchronize");
  }

 private:
  int index_;
  StreamHandle handle_;
  std::weak_ptr<void> scratch_;
  std::size_t scratch_bytes_ = 0;
};

std::unique_ptr<Backend> open(int index) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    fail("no GPU can be used: ", cudaGetErrorString(status), " (", cudaGetErrorName(status),
         "); an NVIDIA GPU and its driver are needed");
  }
  require(index < count, "this machine has ", count, " CUDA device(s), numbered from 0");
  return std::make_unique<CudaBackend>(index);
}

}  // namespace
}  // namespace mb::cuda

extern "C" [[gnu::visibility("default")]] void mb_backend_entry(mb::BackendLibrary& library) {
  library = {__start_mb_kernels, __stop_mb_kernels, mb::cuda::open};
}
