// The order of work on a device. The CPU runs launches as they come and has no handle.
#pragma once

namespace mb {

class Stream {
 public:
  void* handle = nullptr;  // a cudaStream_t on CUDA devices (mb/device_kernel.h)
};

}  // namespace mb
