// Ranks as processes, on one or many hosts: any MPI library with the standard ABI, opened when it
// is asked for. Calls do not block inside MPI, so that a rank that never comes is noticed and
// named.
#include <dlfcn.h>
#include <sched.h>

#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "background.h"
#include "mb/communicator.h"
#include "mpi_functions.h"

namespace mb {
namespace {

using namespace mpi;
using Clock = std::chrono::steady_clock;

constexpr int kGroupTag = 1;                        // of Comm_create_group
constexpr int kPresenceTag = 2;                     // of messages "I am here"
constexpr std::chrono::duration<double> kGrace{2};  // for such messages to come in

// The entry points of one library.
struct Table {
#define MB_MEMBER(name, ...) int (*name)(__VA_ARGS__) = nullptr;
  MB_MPI_FUNCTIONS(MB_MEMBER)
#undef MB_MEMBER
};

Table open_table(const std::string& library) {
  // MPI's own plug-ins look for its symbols: RTLD_GLOBAL.
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (handle == nullptr) fail(dlerror());
  Table table;
  const auto find = [&](const char* name) {
    void* found = dlsym(handle, name);
    require(found != nullptr, library, " has no ", name, ": it is no MPI with the standard ABI");
    return found;
  };
#define MB_FIND(name, ...) table.name = reinterpret_cast<int (*)(__VA_ARGS__)>(find("MPI_" #name));
  MB_MPI_FUNCTIONS(MB_FIND)
#undef MB_FIND
  return table;
}

// MPI in this process: one library, initialised once. The presence messages have a communicator of
// their own, over all processes.
struct Process {
  Table call;
  Comm world{}, presence{};
  int rank = 0, size = 1;
  // Shared by the threads that wait, under the lock: why the world has failed; who has said that it
  // waits too, since this process began to ask (empty: it does not).
  std::mutex mutex;
  std::string failure;
  std::vector<bool> heard;
  Clock::time_point asked;

  void check(int code, const char* what) const {
    if (code == kSuccess) return;
    std::vector<char> text(kMaxErrorString);
    int length = 0;
    call.Error_string(code, text.data(), &length);
    fail("MPI: ", what, ": ", std::string(text.data(), std::size_t(length)));
  }
};

Process*& process() {
  static Process* only = nullptr;
  return only;
}

Datatype type_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return handle<Datatype>(kFloat);
    case DType::kFloat64:
      return handle<Datatype>(kDouble);
    case DType::kInt32:
      return handle<Datatype>(kInt32);
    case DType::kInt64:
      return handle<Datatype>(kInt64);
    case DType::kUint8:
    case DType::kBool:
      return handle<Datatype>(kUint8);
  }
  fail("unknown element type");
}

Op op_of(Reduction reduction) {
  constexpr std::array<std::uintptr_t, 3> kOps{kSum, kMax, kMin};
  return handle<Op>(kOps[std::size_t(reduction)]);
}

void* in_place() { return handle<void*>(kInPlace); }

class Mpi final : public Communicator {
 public:
  // `members`: ranks in MPI's world.
  Mpi(Process& process, std::vector<int> members, int own)
      : Communicator(own, int(members.size())), p_(process), members_(std::move(members)) {}

  void all_reduce(const void* in, void* out, std::int64_t count, DType dtype,
                  Reduction reduction) override {
    await(kAllReduce, begin_all_reduce(in, out, count, dtype, reduction), yield);
  }

  // Begun here, so in the order of the calls; MPI itself only moves on while somebody asks it.
  std::future<std::string> start_all_reduce(const void* in, void* out, std::int64_t count,
                                            DType dtype, Reduction reduction) override {
    const Request request = begin_all_reduce(in, out, count, dtype, reduction);
    return background_.start([this, request] { await(kAllReduce, request, sleep); });
  }

  void all_gather(const void* in, void* out, std::int64_t count, DType dtype) override {
    run("an all-gather", [&](Comm comm, Request* request) {
      return p_.call.Iallgather_c(in, count, type_of(dtype), out, count, type_of(dtype), comm,
                                  request);
    });
  }

  void broadcast(const void* in, void* out, std::int64_t count, DType dtype, int root) override {
    require(root >= 0 && root < size(), "root ", root, " of ", size(), " ranks");
    if (rank() == root && in != out) std::memcpy(out, in, std::size_t(count) * size_of(dtype));
    run("a broadcast", [&](Comm comm, Request* request) {
      return p_.call.Ibcast_c(out, count, type_of(dtype), root, comm, request);
    });
  }

  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype,
                      Reduction reduction) override {
    require(dtype != DType::kBool, "bool values cannot be reduced");
    run("a reduce-scatter", [&](Comm comm, Request* request) {
      return p_.call.Ireduce_scatter_block_c(in, out, count, type_of(dtype), op_of(reduction), comm,
                                             request);
    });
  }

  // The launcher ends the other processes; this one ends here.
  void abort(const std::string&) noexcept override { p_.call.Abort(p_.world, 1); }

 private:
  std::unique_ptr<Communicator> connect(const std::vector<int>& members, int own) override {
    std::vector<int> in_world;
    for (const int member : members) in_world.push_back(members_[std::size_t(member)]);
    return std::make_unique<Mpi>(p_, std::move(in_world), own);
  }

  // MPI's handle of this group, made by its first collective: only its members take part.
  Comm comm() {
    if (comm_ != handle<Comm>(kCommNull)) return comm_;
    if (size() == p_.size) return comm_ = p_.world;
    Group all{}, some{};
    p_.check(p_.call.Comm_group(p_.world, &all), "Comm_group");
    p_.check(p_.call.Group_incl(all, size(), members_.data(), &some), "Group_incl");
    p_.check(p_.call.Comm_create_group(p_.world, some, kGroupTag, &comm_), "Comm_create_group");
    p_.check(p_.call.Comm_set_errhandler(comm_, handle<Errhandler>(kErrorsReturn)),
             "Comm_set_errhandler");
    p_.check(p_.call.Group_free(&some), "Group_free");
    p_.check(p_.call.Group_free(&all), "Group_free");
    return comm_;
  }

  Request begin_all_reduce(const void* in, void* out, std::int64_t count, DType dtype,
                           Reduction reduction) {
    require(dtype != DType::kBool, "bool values cannot be reduced");
    return begin(kAllReduce, [&](Comm comm, Request* request) {
      return p_.call.Iallreduce_c(in == out ? in_place() : in, out, count, type_of(dtype),
                                  op_of(reduction), comm, request);
    });
  }

  template <typename Start>
  Request begin(const char* what, const Start& start) {
    {
      const std::scoped_lock lock(p_.mutex);
      throw_failure();
    }
    Request request = handle<Request>(kRequestNull);
    p_.check(start(comm(), &request), what);
    return request;
  }

  template <typename Start>
  void run(const char* what, const Start& start) {
    await(what, begin(what, start), yield);
  }

  static void yield() { sched_yield(); }  // there may be more threads than cores
  // The rank computes meanwhile: its processors are its own.
  static void sleep() { std::this_thread::sleep_for(std::chrono::microseconds(200)); }

  template <typename Pause>
  void await(const char* what, Request request, const Pause& pause) const {
    constexpr std::chrono::milliseconds kWatch{1};
    const auto begun = Clock::now();
    auto watched = begun;
    for (std::int64_t polls = 1;; ++polls) {
      int done = 0;
      p_.check(p_.call.Test(&request, &done, nullptr), what);
      if (done != 0) break;
      if (polls % 64 != 0) continue;
      pause();
      const auto now = Clock::now();
      if (now - watched < kWatch) continue;
      watched = now;
      watch(what, now - begun);
    }
    if (watched == begun) return;
    const std::scoped_lock lock(p_.mutex);
    p_.heard.clear();  // it went on: whoever waits too long from now on asks again
  }

  // Ranks that have waited too long tell each other so; whoever says nothing is missing.
  void watch(const char* what, Clock::duration waited) const {
    const std::scoped_lock lock(p_.mutex);
    throw_failure();
    const auto limit = collective_limit();
    if (waited > limit && p_.heard.empty()) ask();
    listen();
    if (!p_.heard.empty() && Clock::now() - p_.asked > kGrace) give_up(what, limit.count());
  }

  void ask() const {
    for (int other = 0; other < p_.size; ++other) {
      Request sent = handle<Request>(kRequestNull);  // never waited for: the message has no content
      if (other == p_.rank) continue;
      p_.check(p_.call.Isend(nullptr, 0, handle<Datatype>(kUint8), other, kPresenceTag, p_.presence,
                             &sent),
               "Isend");
    }
    p_.heard.assign(std::size_t(p_.size), false);
    p_.asked = Clock::now();
  }

  // Who has said that it waits; the first such message lets this rank say so too.
  void listen() const {
    for (;;) {
      int found = 0;
      Status status{};
      p_.check(p_.call.Iprobe(kAnySource, kPresenceTag, p_.presence, &found, &status), "Iprobe");
      if (found == 0) return;
      p_.check(p_.call.Recv(nullptr, 0, handle<Datatype>(kUint8), status.source, kPresenceTag,
                            p_.presence, &status),
               "Recv");
      if (p_.heard.empty()) ask();
      p_.heard[std::size_t(status.source)] = true;
    }
  }

  [[noreturn]] void give_up(const char* what, double limit) const {
    std::string missing;
    for (const int member : members_) {
      if (member == p_.rank || p_.heard[std::size_t(member)]) continue;
      missing += (missing.empty() ? "rank " : ", rank ") + std::to_string(member);
    }
    std::ostringstream text;
    text << "waited " << limit << " s (MB_COLLECTIVE_TIMEOUT) for "
         << (missing.empty() ? "ranks that wait elsewhere" : missing) << " in " << what;
    p_.failure = text.str();
    fail(p_.failure);
  }

  void throw_failure() const {
    if (!p_.failure.empty()) fail(p_.failure);
  }

  static constexpr const char* kAllReduce = "an all-reduce";
  Process& p_;
  std::vector<int> members_;
  Comm comm_ = handle<Comm>(kCommNull);
  Background background_;  // last: its thread ends first
};

}  // namespace

std::shared_ptr<Communicator> make_mpi(const std::string& library) {
  if (process() == nullptr) {
    auto opened = std::make_unique<Process>();
    Process& p = *opened;
    p.call = open_table(library);
    int initialised = 0, provided = 0;
    p.check(p.call.Initialized(&initialised), "Initialized");
    if (initialised == 0) {
      p.check(p.call.Init_thread(nullptr, nullptr, kThreadMultiple, &provided), "Init_thread");
    } else {
      p.check(p.call.Query_thread(&provided), "Query_thread");
    }
    require(provided == kThreadMultiple, library, " does not let several threads call it ",
            "(MPI_THREAD_MULTIPLE)");
    // Communicators of our own: another user of MPI in this process is not disturbed.
    const auto dup = [&](Comm& copy) {
      p.check(p.call.Comm_dup(handle<Comm>(kCommWorld), &copy), "Comm_dup");
      p.check(p.call.Comm_set_errhandler(copy, handle<Errhandler>(kErrorsReturn)),
              "Comm_set_errhandler");
    };
    dup(p.world);
    dup(p.presence);
    p.check(p.call.Comm_rank(p.world, &p.rank), "Comm_rank");
    p.check(p.call.Comm_size(p.world, &p.size), "Comm_size");
    process() = opened.release();  // for good: MPI cannot be initialised again
  }
  Process& p = *process();
  std::vector<int> everyone;
  for (int rank = 0; rank < p.size; ++rank) everyone.push_back(rank);
  return std::make_shared<Mpi>(p, everyone, p.rank);
}

void finish_mpi() noexcept {
  if (process() == nullptr) return;
  const Process& p = *process();
  int finalized = 0;
  p.call.Finalized(&finalized);
  if (finalized != 0) return;
  // Finalize waits for all ranks: only when it is sure that all will come.
  try {
    const char here = 1;
    std::vector<char> all(std::size_t(p.size));
    make_mpi("")->all_gather(&here, all.data(), 1, DType::kUint8);
    p.call.Finalize();
  } catch (const std::exception&) {  // who is missing was reported, or will be by the others
    p.call.Abort(p.world, 1);
  }
}

}  // namespace mb
