// Opens libraries of kernels.
#include "mb/library.h"

#include <dlfcn.h>

#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "build_record.h"
#include "mb/parallel.h"
#include "mb/registry.h"

namespace mb {
namespace {

struct Close {
  void operator()(void* handle) const { dlclose(handle); }
};
using Handle = std::unique_ptr<void, Close>;

std::set<std::string> names_of(const KernelRange& kernels) {
  std::set<std::string> names;
  for (auto line = kernels.begin; line != kernels.end; ++line) names.insert((*line)->name);
  return names;
}

}  // namespace

std::set<std::string> open_library(const std::string& path) {
  static std::mutex mutex;
  static std::map<void*, std::set<std::string>> opened;  // handles that are never closed
  const std::scoped_lock lock(mutex);
  Handle handle(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL));
  if (handle == nullptr) fail(path, " cannot be opened: ", dlerror());
  if (const auto known = opened.find(handle.get()); known != opened.end()) return known->second;

  const auto* stamp = static_cast<const char*>(dlsym(handle.get(), kStampSymbol));
  if (stamp == nullptr) fail(path, " is no library of kernels: it has no ", kStampSymbol);
  if (std::string_view(stamp) != MB_STAMP) {
    throw WrongStamp(path + " was built for another engine\n  the library: " + stamp +
                     "\n  this engine: " MB_STAMP);
  }
  const auto entry = reinterpret_cast<LibraryEntry>(dlsym(handle.get(), kEntrySymbol));
  if (entry == nullptr) fail(path, " is no library of kernels: it has no ", kEntrySymbol);
  const KernelRange kernels = entry(EngineFunctions{&num_threads});
  add_kernels(kernels.begin, kernels.end, path);
  return opened[handle.release()] = names_of(kernels);
}

}  // namespace mb
