// The number of threads.
#include "mb/parallel.h"

#include <sched.h>

#include <atomic>

#include "mb/threads.h"

namespace mb {
namespace {
int usable_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, omp_get_num_procs());
}

int& chosen() {
  thread_local int count = 0;  // each logical rank (a thread) has its own team
  return count;
}
std::atomic<int>& process_default() {
  static std::atomic<int> count = usable_cpus();
  return count;
}
}  // namespace

int num_threads() {
  if (chosen() == 0) set_num_threads(process_default());
  return chosen();
}

void set_default_num_threads(int count) { process_default() = std::max(1, count); }

void set_num_threads(int count) {
  chosen() = std::max(1, count);
  omp_set_num_threads(chosen());  // oneDNN asks OpenMP
}

}  // namespace mb
