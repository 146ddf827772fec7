// Threads: OpenMP (the same team that oneDNN uses), with ranges instead of indices.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#ifdef MB_PLAIN_THREADS
#include <thread>
#include <vector>
#endif

namespace mb {

int num_threads();                // MB_NUM_THREADS, or the CPUs this process may use
void set_num_threads(int count);  // for the calling thread's later runs

// Keeps the first exception that a team's threads throw: none may leave an OpenMP region.
class FirstError {
 public:
  template <typename Work>
  void guard(const Work& work) noexcept {
    try {
      work();
    } catch (...) {
      if (!taken_.test_and_set()) error_ = std::current_exception();
    }
  }
  void rethrow() const {  // after the region
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::atomic_flag taken_;
  std::exception_ptr error_;
};

// Calls work(rank, size) on every thread of a team of at most `most`; `work` must not throw.
template <typename Work>
void run_team(int most, const Work& work) {
#ifdef MB_PLAIN_THREADS  // ThreadSanitizer cannot see how GNU OpenMP's threads wait for each other
  std::vector<std::thread> others;
  for (int rank = 1; rank < most; ++rank) others.emplace_back([&, rank] { work(rank, most); });
  work(0, most);
  for (std::thread& other : others) other.join();
#else
#pragma omp parallel num_threads(most)
  work(omp_get_thread_num(), omp_get_num_threads());
#endif
}

// Calls body(begin, end) on disjoint pieces that cover [0, n). A piece holds at least `grain`
// items, so small work stays on one thread. Pieces depend only on n, grain and the thread count:
// results are the same in every run. An exception of any piece reaches the caller.
template <typename Body>
void parallel_for(std::int64_t n, std::int64_t grain, const Body& body) {
  if (n <= 0) return;
  const std::int64_t most = n / std::max<std::int64_t>(grain, 1);
  const std::int64_t wanted = std::min<std::int64_t>(num_threads(), most);
  if (wanted <= 1) {
    body(std::int64_t{0}, n);
    return;
  }
  FirstError error;
  run_team(int(wanted), [&](std::int64_t rank, std::int64_t team) {
    const std::int64_t begin = n * rank / team;
    const std::int64_t end = n * (rank + 1) / team;
    if (begin < end) error.guard([&] { body(begin, end); });
  });
  error.rethrow();
}

// As above for items of very unequal cost: body(index), handed out one by one.
template <typename Body>
void parallel_each(std::int64_t n, const Body& body) {
  const int team = int(std::min<std::int64_t>(num_threads(), n));
  if (team <= 1) {
    for (std::int64_t i = 0; i < n; ++i) body(i);
    return;
  }
  FirstError error;
  std::atomic<std::int64_t> next = 0;
  run_team(team, [&](int, int) {
    for (std::int64_t i = next++; i < n; i = next++) error.guard([&] { body(i); });
  });
  error.rethrow();
}

}  // namespace mb
