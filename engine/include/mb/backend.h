// What the engine asks of a device: memory, copies and launches in one order, waiting.
//
// The CPU's backend is part of the engine. Others are shared objects beside it, opened when a
// program first names such a device; the engine links to none of them.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>

#include "mb/kernel.h"
#include "mb/stream.h"

namespace mb {

using Memory = std::shared_ptr<void>;  // given back with its last owner

class Backend {
 public:
  explicit Backend(Device device) : device_(device) {}
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend() = default;

  Device device() const { return device_; }
  // Kernels read and write the host's memory: state stays where it is, nothing is copied.
  bool shares_host_memory() const { return device_ == Device::kCpu; }

  std::mutex& mutex() { return mutex_; }  // held by the executable that is loading or running
  Stream& stream() { return stream_; }

  virtual void use() = 0;  // before any call below: the device becomes the calling thread's
  virtual Memory scratch(std::size_t bytes) = 0;  // one block for all executables; its content is
                                                  // lost when another one runs
  // As `scratch`, for a while: what it takes beyond the scratch block is given back with its owner,
  // who must hold the mutex until then.
  virtual Memory borrow(std::size_t bytes) { return scratch(bytes); }
  virtual std::size_t scratch_size() const { return 0; }             // its bytes now; on the CPU
  virtual void fill(void* device, int byte, std::size_t bytes) = 0;  // in the stream's order
  // Waits for the stream; throws Error when something in it failed.
  virtual void synchronize() = 0;

  // Only for devices with memory of their own. Copies are made in the stream's order: the host's
  // side must stay untouched until `synchronize`.
  virtual Memory allocate(std::size_t bytes) = 0;
  virtual Memory allocate_staging(std::size_t bytes) = 0;  // of the host, for copies
  virtual void copy_in(void* device, const void* host, std::size_t bytes) = 0;
  virtual void copy_out(void* host, const void* device, std::size_t bytes) = 0;

 protected:
  Stream stream_;

 private:
  Device device_;
  std::mutex mutex_;
};

// The backend of "cpu", "cpu:1" or "cuda:0", opened at the first call; throws Error saying what is
// missing. "cpu:N" are logical devices of one machine, for ranks that are threads: each has a
// scratch arena of its own, and runs its executables beside the others'. "cpu" is "cpu:0".
Backend& open_backend(const std::string& device);

// What a backend's shared object exports, under the name kBackendEntry.
struct BackendLibrary {
  const Registration* const* kernels_begin;
  const Registration* const* kernels_end;
  std::unique_ptr<Backend> (*open)(int index);  // throws Error
};
using BackendEntry = void (*)(BackendLibrary&);
inline constexpr const char* kBackendEntry = "mb_backend_entry";

}  // namespace mb
