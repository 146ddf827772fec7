// The CPU's backend, and how the others are found and opened.
#include "mb/backend.h"

#include <dlfcn.h>

#include <charconv>
#include <cstring>
#include <filesystem>
#include <map>

#include "mb/arena.h"
#include "mb/registry.h"

namespace mb {
namespace {

class CpuBackend final : public Backend {
 public:
  CpuBackend() : Backend(Device::kCpu) {}
  void use() override {}
  Memory scratch(std::size_t bytes) override {
    Arena::scratch().reserve(bytes);
    return Memory(Memory(), Arena::scratch().base());  // nobody owns it
  }
  Memory borrow(std::size_t bytes) override {
    Arena& arena = Arena::scratch();
    const std::size_t before = arena.size();
    arena.reserve(bytes);
    return Memory(arena.base(), [&arena, before](void*) { arena.shrink(before); });
  }
  Memory allocate(std::size_t) override { nothing_to_copy(); }
  Memory allocate_staging(std::size_t) override { nothing_to_copy(); }
  void copy_in(void*, const void*, std::size_t) override { nothing_to_copy(); }
  void copy_out(void*, const void*, std::size_t) override { nothing_to_copy(); }
  void fill(void* device, int byte, std::size_t bytes) override {
    std::memset(device, byte, bytes);
  }
  void synchronize() override {}

 private:
  [[noreturn]] static void nothing_to_copy() { fail("the CPU's memory is the host's"); }
};

std::filesystem::path folder_of_this_module() {
  Dl_info info{};
  require(dladdr(reinterpret_cast<const void*>(&folder_of_this_module), &info) != 0,
          "the engine's own file was not found");
  return std::filesystem::path(info.dli_fname).parent_path();
}

constexpr const char* kGetRuntime =
    "; install CUDA's runtime library (pip install nvidia-cuda-runtime) or name its folder in "
    "LD_LIBRARY_PATH";

// Opened once, with its kernels in the table, and never closed.
const BackendLibrary& cuda_library() {
  static const BackendLibrary library = [] {
    const auto path = folder_of_this_module() / "libmb_cuda.so";
    require(std::filesystem::exists(path),
            "this build has no CUDA backend; install nvcc and build again with "
            "MB_CMAKE_ARGS=-DMB_CUDA=ON");
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      const std::string reason = dlerror();
      fail(reason, reason.find("cudart") == std::string::npos ? "" : kGetRuntime);
    }
    const auto entry = reinterpret_cast<BackendEntry>(dlsym(handle, kBackendEntry));
    require(entry != nullptr, path.string(), " has no ", kBackendEntry);
    BackendLibrary found{};
    entry(found);
    add_kernels(found.kernels_begin, found.kernels_end, "libmb_cuda.so");
    return found;
  }();
  return library;
}

// The N of "cuda:N", or -1.
int cuda_index(std::string_view device) {
  constexpr std::string_view kPrefix = "cuda:";
  if (!device.starts_with(kPrefix)) return -1;
  const std::string_view digits = device.substr(kPrefix.size());
  int index = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  return error == std::errc() && end == digits.data() + digits.size() ? index : -1;
}

}  // namespace

Backend& open_backend(const std::string& device) {
  static CpuBackend cpu;
  if (device == "cpu") return cpu;
  const int index = cuda_index(device);
  require(index >= 0, "device ", device, " is not known; expected cpu or cuda:0, cuda:1, ...");

  static std::mutex mutex;
  static auto& opened = *new std::map<int, std::unique_ptr<Backend>>;  // outlives every executable
  const std::scoped_lock lock(mutex);
  std::unique_ptr<Backend>& backend = opened[index];
  if (backend == nullptr) {
    try {
      backend = cuda_library().open(index);
    } catch (const std::exception& error) {
      fail("device ", device, ": ", error.what());
    }
  }
  return *backend;
}

}  // namespace mb
