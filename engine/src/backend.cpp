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
    arena_.reserve(bytes);
    return Memory(Memory(), arena_.base());  // nobody owns it
  }
  Memory borrow(std::size_t bytes) override {
    const std::size_t before = arena_.size();
    arena_.reserve(bytes);
    return Memory(arena_.base(), [this, before](void*) { arena_.shrink(before); });
  }
  std::size_t scratch_size() const override { return arena_.size(); }
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

  Arena arena_;
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

// The N of "kind:N", or -1.
int index_of(std::string_view device, std::string_view kind) {
  if (!device.starts_with(kind)) return -1;
  const std::string_view digits = device.substr(kind.size());
  int index = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  return error == std::errc() && end == digits.data() + digits.size() ? index : -1;
}

}  // namespace

Backend& open_backend(const std::string& device) {
  const int cpu = device == "cpu" ? 0 : index_of(device, "cpu:");
  const int cuda = index_of(device, "cuda:");
  require(cpu >= 0 || cuda >= 0, "device ", device,
          " is not known; expected cpu or cuda:0, cuda:1, ... (or cpu:1, ...: logical devices)");

  static std::mutex mutex;
  using Opened = std::map<std::pair<Device, int>, std::unique_ptr<Backend>>;
  static auto& opened = *new Opened;  // outlives every executable
  const std::scoped_lock lock(mutex);
  auto& backend = opened[cpu >= 0 ? std::pair{Device::kCpu, cpu} : std::pair{Device::kCuda, cuda}];
  if (backend == nullptr && cpu >= 0) backend = std::make_unique<CpuBackend>();
  if (backend == nullptr) {
    try {
      backend = cuda_library().open(cuda);
    } catch (const std::exception& error) {
      fail("device ", device, ": ", error.what());
    }
  }
  return *backend;
}

}  // namespace mb
