// The table of kernels and the choice of the instruction set.
#include "mb/registry.h"

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <optional>

// The section of MB_KERNEL's entries; the linker gives its two ends these names.
extern "C" {
[[gnu::visibility("hidden")]] extern const mb::Registration* __start_mb_kernels[];
[[gnu::visibility("hidden")]] extern const mb::Registration* __stop_mb_kernels[];
}

namespace mb {
namespace {

struct Entry {
  std::string library;  // empty: the engine's own
  std::array<std::optional<Kernel>, kIsaNames.size()> by_isa;
};
using Table = std::map<std::pair<Device, std::string>, Entry, std::less<>>;

Table read_table(const Registration* const* begin, const Registration* const* end,
                 std::string_view library) {
  Table table;
  for (auto line = begin; line != end; ++line) {
    const auto& [name, device, isa, kernel] = **line;
    Entry& entry = table[{device, name}];
    entry.library = library;
    auto& slot = entry.by_isa[std::size_t(isa)];
    require(!slot.has_value(), "kernel ", name, " is registered twice");
    slot = kernel;
  }
  return table;
}

Table& table() {  // grows, but never loses an entry: references to kernels stay good
  static Table entries = read_table(__start_mb_kernels, __stop_mb_kernels, "");
  return entries;
}

std::mutex& table_mutex() {
  static std::mutex mutex;
  return mutex;
}

Isa level_of_this_cpu() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  // GCC's names of the psABI levels; older compilers know only the single features.
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  if (v4) return Isa::kV4;
  if (v3) return Isa::kV3;
#endif
  return Isa::kBase;
}

Isa& chosen() {
  static Isa isa = level_of_this_cpu();
  return isa;
}

Isa isa_from_name(std::string_view name) {
  const auto found = std::find(kIsaNames.begin(), kIsaNames.end(), name);
  if (found == kIsaNames.end()) fail("unknown instruction set ", name, "; known: base, v3, v4");
  return Isa(found - kIsaNames.begin());
}

}  // namespace

std::string_view isa_name(Isa isa) { return kIsaNames[std::size_t(isa)]; }

Isa isa_in_use() { return chosen(); }

void choose_isa(std::string_view name) {
  const Isa wanted = isa_from_name(name);
  require(wanted <= level_of_this_cpu(), "instruction set ", name,
          " is not available: this CPU has ", isa_name(level_of_this_cpu()));
  chosen() = wanted;
}

void add_kernels(const Registration* const* begin, const Registration* const* end,
                 std::string_view library) {
  Table added = read_table(begin, end, library);
  const std::scoped_lock lock(table_mutex());
  for (const auto& [key, entry] : added) {
    const auto known = table().find(key);
    if (known == table().end()) continue;
    const std::string& owner = known->second.library;
    fail("kernel ", key.second, " exists already, in ", owner.empty() ? "the engine" : owner);
  }
  table().merge(added);
}

const Kernel& find_kernel(std::string_view name, Device device) {
  const std::scoped_lock lock(table_mutex());
  const auto found = table().find(std::pair{device, std::string(name)});
  require(found != table().end(), "no kernel for operator ", name, " on the ",
          device == Device::kCpu ? "cpu" : "cuda device", ": its file is missing from the build");
  for (int isa = int(isa_in_use()); isa >= 0; --isa) {
    const auto& kernel = found->second.by_isa[std::size_t(isa)];
    if (kernel) return *kernel;
  }
  fail("kernel ", name, " was not built for instruction set ", isa_name(isa_in_use()));
}

std::vector<std::string> kernel_names(Device device) {
  const std::scoped_lock lock(table_mutex());
  std::vector<std::string> names;
  for (const auto& [key, entry] : table()) {
    if (key.first == device) names.push_back(key.second);
  }
  return names;
}

}  // namespace mb
