// A stand-in for CUDA's runtime library, for tests on machines without a GPU.
//
// It has the real library's name, so that libmb_cuda.so binds to it when it is loaded first. What
// each function does follows the CUDA Runtime API documentation; the headers check the signatures.
// Streams are lazy: work runs as late as the interface permits, when something waits for it, so a
// missing wait shows at once. Kernels are run by Python (runtime.py), which interprets their PTX.
// Device addresses are mapped nowhere: host code that looks into device memory crashes.
#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

struct CUstream_st {
  std::deque<std::function<cudaError_t()>> work;
};

namespace {

// Python's part. `enqueue` copies the arguments of a launch and gives a number > 0, or minus an
// error; `execute` runs it.
using Enqueue = int (*)(const char* name, const unsigned* grid, const unsigned* block,
                        std::size_t shared_bytes, void** arguments);
using Execute = int (*)(int number);

constexpr std::size_t kAddressSpace = std::size_t{1} << 40;
constexpr std::size_t kGuard = 4096;  // unused bytes after each allocation
constexpr int kPoison = 0xFF;         // NaN as a float, -1 as an integer

struct {
  Enqueue enqueue = nullptr;
  Execute execute = nullptr;
  int devices = 1;
  int launches_to_failure = 0;  // > 0: the launch that counts it down to 0 is refused
  cudaError_t last = cudaSuccess;
  cudaError_t sticky = cudaSuccess;  // an error of the device stays until the process ends
  std::uint64_t next_address = 0;
  std::map<std::uint64_t, std::vector<unsigned char>> allocations;  // by device address
  std::map<const char*, std::size_t> pinned;
  std::map<const void*, std::string> kernels;  // host function -> name in the PTX
  std::vector<cudaStream_t> streams;
} state;

struct Description {
  cudaError_t status;
  const char *name, *text;
};
constexpr Description kDescriptions[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
};

Description describe(cudaError_t status) {
  for (const Description& known : kDescriptions) {
    if (known.status == status) return known;
  }
  return {status, "unknown", "an error that the stand-in has no text for"};
}

cudaError_t report(cudaError_t status) {
  if (status != cudaSuccess) state.last = status;
  return status;
}

cudaError_t run_all(cudaStream_t stream) {
  while (!stream->work.empty()) {
    const auto work = std::move(stream->work.front());
    stream->work.pop_front();
    if (state.sticky == cudaSuccess) state.sticky = work();
  }
  return state.sticky;
}

void run_everything() {
  for (cudaStream_t stream : state.streams) run_all(stream);
}

// The bytes behind [address, address + bytes), or null when they are not one live allocation's.
unsigned char* behind(const void* address, std::size_t bytes) {
  const auto at = reinterpret_cast<std::uint64_t>(address);
  auto found = state.allocations.upper_bound(at);
  if (found == state.allocations.begin()) return nullptr;
  auto& [start, block] = *--found;
  return at - start + bytes <= block.size() ? block.data() + (at - start) : nullptr;
}

bool is_pinned(const void* address, std::size_t bytes) {
  const char* const at = static_cast<const char*>(address);
  auto found = state.pinned.upper_bound(at);
  if (found == state.pinned.begin()) return false;
  const auto& [start, size] = *--found;
  return at + bytes <= start + size;
}

cudaError_t enqueue(cudaStream_t stream, std::function<cudaError_t()> work) {
  if (stream == nullptr) return report(cudaErrorInvalidResourceHandle);  // the default stream
  if (state.sticky != cudaSuccess) return report(state.sticky);
  stream->work.push_back(std::move(work));
  return cudaSuccess;
}

}  // namespace

extern "C" {

// --- for the tests -------------------------------------------------------------------------------

void standin_connect(Enqueue enqueue_launch, Execute execute) {
  state.enqueue = enqueue_launch;
  state.execute = execute;
}
void standin_set_devices(int count) { state.devices = count; }
void standin_fail_launch(int countdown) { state.launches_to_failure = countdown; }

// Writes (device address, bytes, host address) of at most `most` live allocations.
int standin_allocations(std::uint64_t* out, int most) {
  int count = 0;
  for (auto& [address, block] : state.allocations) {
    if (count == most) break;
    out[3 * count] = address;
    out[3 * count + 1] = block.size();
    out[3 * count + 2] = reinterpret_cast<std::uint64_t>(block.data());
    ++count;
  }
  return count;
}

// --- devices and errors --------------------------------------------------------------------------

cudaError_t cudaGetDeviceCount(int* count) {
  *count = state.devices;
  return state.devices > 0 ? cudaSuccess : report(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) {
  return report(device >= 0 && device < state.devices ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaGetLastError() {
  const cudaError_t last = state.sticky != cudaSuccess ? state.sticky : state.last;
  state.last = cudaSuccess;
  return last;
}
const char* cudaGetErrorName(cudaError_t error) { return describe(error).name; }
const char* cudaGetErrorString(cudaError_t error) { return describe(error).text; }

// --- memory --------------------------------------------------------------------------------------

cudaError_t cudaMalloc(void** address, std::size_t bytes) {
  if (state.next_address == 0) {
    void* space =
        mmap(nullptr, kAddressSpace, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED) return report(cudaErrorMemoryAllocation);
    state.next_address = reinterpret_cast<std::uint64_t>(space);
  }
  if (bytes == 0) {
    *address = nullptr;
    return cudaSuccess;
  }
  state.allocations[state.next_address].assign(bytes, kPoison);
  *address = reinterpret_cast<void*>(state.next_address);
  state.next_address += (bytes + kGuard + 255) / 256 * 256;
  return cudaSuccess;
}
cudaError_t cudaFree(void* address) {  // waits for the device
  run_everything();
  if (address != nullptr && state.allocations.erase(reinterpret_cast<std::uint64_t>(address)) == 0)
    return report(cudaErrorInvalidValue);
  return state.sticky;
}
cudaError_t cudaMallocHost(void** address, std::size_t bytes) {
  *address = std::malloc(bytes);
  std::memset(*address, kPoison, bytes);
  state.pinned[static_cast<char*>(*address)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* address) {
  run_everything();
  if (state.pinned.erase(static_cast<char*>(address)) == 0) return report(cudaErrorInvalidValue);
  std::free(address);
  return state.sticky;
}

// Page-locked memory is read and written when the stream gets there. Other memory of the host is
// copied at once on its way to the device; a copy back to it waits ("API synchronization
// behavior").
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (kind == cudaMemcpyHostToDevice) {
    if (behind(to, bytes) == nullptr) return report(cudaErrorInvalidValue);
    std::vector<char> copy;
    if (!is_pinned(from, bytes)) {
      copy.assign(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    }
    return enqueue(stream, [=, copy = std::move(copy)] {
      std::memcpy(behind(to, bytes), copy.empty() ? from : copy.data(), bytes);
      return cudaSuccess;
    });
  }
  if (kind != cudaMemcpyDeviceToHost || behind(from, bytes) == nullptr)
    return report(cudaErrorInvalidValue);
  const cudaError_t status = enqueue(stream, [=] {
    std::memcpy(to, behind(from, bytes), bytes);
    return cudaSuccess;
  });
  if (status != cudaSuccess || is_pinned(to, bytes)) return status;
  return report(run_all(stream));
}
cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t bytes, cudaStream_t stream) {
  if (behind(to, bytes) == nullptr) return report(cudaErrorInvalidValue);
  return enqueue(stream, [=] {
    std::memset(behind(to, bytes), byte, bytes);
    return cudaSuccess;
  });
}

// --- streams and launches ------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = state.streams.emplace_back(new CUstream_st);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const cudaError_t status = run_all(stream);
  std::erase(state.streams, stream);
  delete stream;
  return report(status);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return report(run_all(stream)); }

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             std::size_t shared_bytes, cudaStream_t stream) {
  const auto kernel = state.kernels.find(function);
  if (kernel == state.kernels.end()) return report(cudaErrorInvalidDeviceFunction);
  if (state.launches_to_failure > 0 && --state.launches_to_failure == 0)
    return report(cudaErrorInvalidConfiguration);
  const unsigned g[] = {grid.x, grid.y, grid.z}, b[] = {block.x, block.y, block.z};
  const int number = state.enqueue(kernel->second.c_str(), g, b, shared_bytes, arguments);
  if (number < 0) return report(cudaError_t(-number));
  return enqueue(stream, [number] { return cudaError_t(state.execute(number)); });
}

// --- what nvcc's host code calls when a library is loaded
// ------------------------------------------

void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*,
                            dim3*, dim3*, int*) {
  state.kernels[host] = name;
}

// Referenced by the stubs behind `<<<...>>>`, which this project does not use.
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, std::size_t*, void*) {
  return report(cudaErrorNotSupported);
}
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return report(cudaErrorNotSupported); }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, std::size_t, cudaStream_t) {
  return report(cudaErrorNotSupported);
}

}  // extern "C"
