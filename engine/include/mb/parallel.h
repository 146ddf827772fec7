// Threads: OpenMP (the same team that oneDNN uses), with ranges instead of indices.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace mb {

int num_threads();                // MB_NUM_THREADS, or the CPUs this process may use
void set_num_threads(int count);  // for the calling thread's later runs

// Calls body(begin, end) on disjoint pieces that cover [0, n). A piece holds at least `grain`
// items, so small work stays on one thread. Pieces depend only on n, grain and the thread count:
// results are the same in every run.
template <typename Body>
void parallel_for(std::int64_t n, std::int64_t grain, const Body& body) {
  if (n <= 0) return;
  const std::int64_t wanted =
      std::min<std::int64_t>(num_threads(), n / std::max<std::int64_t>(grain, 1));
  if (wanted <= 1) {
    body(std::int64_t{0}, n);
    return;
  }
#pragma omp parallel num_threads(int(wanted))
  {
    const std::int64_t team = omp_get_num_threads();
    const std::int64_t rank = omp_get_thread_num();
    const std::int64_t begin = n * rank / team;
    const std::int64_t end = n * (rank + 1) / team;
    if (begin < end) body(begin, end);
  }
}

// As above for items of very unequal cost: body(index), handed out one by one.
template <typename Body>
void parallel_each(std::int64_t n, const Body& body) {
  const int team = int(std::min<std::int64_t>(num_threads(), n));
  if (team <= 1) {
    for (std::int64_t i = 0; i < n; ++i) body(i);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
  for (std::int64_t i = 0; i < n; ++i) body(i);
}

}  // namespace mb
