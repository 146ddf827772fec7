// A thread that does jobs one after the other: what goes on of a communicator while its rank
// computes.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <future>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "mb/parallel.h"

namespace mb {

class Background {
 public:
  using Job = std::packaged_task<std::string()>;

  Background() = default;
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;
  ~Background() {  // after the last job
    if (!thread_.joinable()) return;
    put(Job());
    thread_.join();
  }

  // The thread begins with the first job. The result: what the job throws, as text, or nothing.
  template <typename Work>
  std::future<std::string> start(Work work) {
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
    Job job([work = std::move(work)]() -> std::string {
      try {
        work();
      } catch (const std::exception& error) {
        return error.what();
      }
      return {};
    });
    std::future<std::string> done = job.get_future();
    put(std::move(job));
    return done;
  }

 private:
  void put(Job job) {
    {
      const std::scoped_lock lock(mutex_);
      jobs_.push_back(std::move(job));
    }
    changed_.notify_one();
  }

  void run() {
    set_num_threads(1);  // the rank's other threads compute meanwhile
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return !jobs_.empty(); });
      Job job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      if (!job.valid()) return;
      job();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;  // one without work ends the thread
  std::thread thread_;
};

}  // namespace mb
