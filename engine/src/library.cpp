// Opens libraries of kernels.
#include "mb/library.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

#include "build_record.h"
#include "mb/parallel.h"
#include "mb/registry.h"

namespace mb {
namespace {

struct Close {
  void operator()(void* handle) const { dlclose(handle); }
};
using Handle = std::unique_ptr<void, Close>;

using FileId = std::pair<dev_t, ino_t>;  // an open file keeps its number while others replace it

struct Opened {
  FileId file;
  std::set<std::string> kernels;
};

FileId id_of(const std::string& path) {
  struct stat status;
  require(stat(path.c_str(), &status) == 0, path, " cannot be read");
  return {status.st_dev, status.st_ino};
}

std::set<std::string> names_of(const KernelRange& kernels) {
  std::set<std::string> names;
  for (auto line = kernels.begin; line != kernels.end; ++line) names.insert((*line)->name);
  return names;
}

}  // namespace

std::set<std::string> open_library(const std::string& path) {
  static std::mutex mutex;
  static std::map<void*, Opened> opened;  // by handles that are never closed
  const std::scoped_lock lock(mutex);
  const FileId file = id_of(path);
  Handle handle(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL));
  if (handle == nullptr) fail(path, " cannot be opened: ", dlerror());
  if (const auto known = opened.find(handle.get()); known != opened.end()) {
    require(known->second.file == file, path,
            " was built again while it was open: start the program again to use the new one");
    return known->second.kernels;
  }

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
  const std::set<std::string> names = names_of(kernels);
  opened[handle.release()] = {file, names};
  return names;
}

}  // namespace mb
