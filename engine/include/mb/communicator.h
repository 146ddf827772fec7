// Ranks that talk to each other. Only the room ops/collective and the exchange of values between
// programs (bindings.cpp) call this; `local`, `mpi` and, some day, `nccl` stand behind it.
//
// Every rank of a group makes the same calls in the same order. A call that some rank does not join
// within the limit, or joins with another type or size, throws Error on the ranks that did: it says
// which are missing. After an error the whole world has failed: later calls throw at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "mb/dtype.h"
#include "mb/error.h"

namespace mb {

enum class Reduction : std::uint8_t { kSum, kMax, kMin };
inline constexpr std::array<std::string_view, 3> kReductionNames{"sum", "max", "min"};
Reduction reduction_from_name(std::string_view name);  // throws Error for an unknown name

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

  // `count` elements of each rank. `out` may be `in`, but they must not overlap otherwise. Results
  // are the same bits on every rank, and in every run with as many ranks.
  virtual void all_reduce(const void* in, void* out, std::int64_t count, DType dtype,
                          Reduction reduction) = 0;
  // The same while the caller goes on: the values are in use until the result is there. It says
  // what went wrong, if anything: an exception would be shared by two threads. Other collectives
  // may be called meanwhile; those of this kind end in the order in which they were started.
  virtual std::future<std::string> start_all_reduce(const void* in, void* out, std::int64_t count,
                                                    DType dtype, Reduction reduction) = 0;
  // `out` holds what every rank gave, in the order of ranks.
  virtual void all_gather(const void* in, void* out, std::int64_t count, DType dtype) = 0;
  // `in` is read on the root only.
  virtual void broadcast(const void* in, void* out, std::int64_t count, DType dtype, int root) = 0;
  // `in` holds `count` elements for every rank; each gets the reduction of its own.
  virtual void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype,
                              Reduction reduction) = 0;

  // The ranks with this rank's color, in order; `colors` names one for each rank here and is the
  // same on all of them. Made at the first call and kept; its own first collective connects it.
  Communicator& group(std::span<const std::int64_t> colors);

  // Tells the others that this rank will not come any more, and why.
  virtual void abort(const std::string& reason) noexcept = 0;

 protected:
  Communicator(int rank, int size) : rank_(rank), size_(size) {}

 private:
  // `members`: ranks of this communicator, at least two and not all; `own`: this rank's place.
  virtual std::unique_ptr<Communicator> connect(const std::vector<int>& members, int own) = 0;

  int rank_, size_;
  std::mutex mutex_;  // several functions may be loaded at once
  std::map<std::vector<int>, std::unique_ptr<Communicator>> groups_;
};

// What a lone rank talks to: itself.
std::unique_ptr<Communicator> make_alone();

// One communicator for each rank, whose ranks are threads of this process.
std::vector<std::shared_ptr<Communicator>> make_local(int size);

// All processes that one `mpiexec` started. `library`: path or name of a libmpi_abi.so, opened at
// the first call. Throws Error when it cannot be opened or is not MPI.
std::shared_ptr<Communicator> make_mpi(const std::string& library);
// At the end of the process: leaves MPI when all ranks do, or ends the other processes.
void finish_mpi() noexcept;

// Seconds that a rank waits for others in one collective.
std::chrono::duration<double> collective_limit();
void set_collective_limit(double seconds);

// Throws Error, naming the first difference, unless `text` is equal on every rank of the world.
// Costs one all-gather of sixteen bytes when it is.
void require_agreement(Communicator& world, const std::string& text);

// Every rank's bytes, in the order of ranks. Throws Error when another rank begins a run meanwhile.
std::vector<std::string> exchange(Communicator& world, const std::string& bytes);

}  // namespace mb
