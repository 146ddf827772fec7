// Ranks as threads of one process: each reduces its share of the elements, for all, from the
// others' own memory.
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <optional>

#include "background.h"
#include "mb/communicator.h"
#include "mb/parallel.h"

namespace mb {
namespace {

using Clock = std::chrono::steady_clock;

enum class Kind : std::uint8_t { kAllReduce, kAllGather, kBroadcast, kReduceScatter };
constexpr std::array<std::string_view, 4> kKindNames{"an all-reduce", "an all-gather",
                                                     "a broadcast", "a reduce-scatter"};

// What one rank brings to a collective.
struct Offer {
  Kind kind{};
  const char* in = nullptr;
  char* out = nullptr;
  std::int64_t count = 0;
  DType dtype{};
  Reduction reduction = Reduction::kSum;
  int root = 0;

  bool agrees(const Offer& other) const {
    return kind == other.kind && count == other.count && dtype == other.dtype &&
           reduction == other.reduction && root == other.root;
  }
  std::string text() const {
    std::string said = std::string(kKindNames[std::size_t(kind)]) + " of " + std::to_string(count) +
                       " " + std::string(name_of(dtype));
    if (kind == Kind::kBroadcast) return said + " from rank " + std::to_string(root);
    if (kind == Kind::kAllGather) return said;
    return said + ", " + std::string(kReductionNames[std::size_t(reduction)]);
  }
};

// Shared by all ranks and groups: one lock, and why the world has failed, if it has.
struct World {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<std::string> failure;
};

// The ranks of one group meet twice in each collective: when all have brought their offer, and when
// all have done their share and nobody needs the others' memory any more.
struct Meeting {
  explicit Meeting(std::vector<int> ranks) : members(std::move(ranks)), offers(members.size()) {}

  const std::vector<int> members;  // ranks in the world, for messages
  std::vector<Offer> offers;
  std::vector<bool> here = std::vector<bool>(members.size(), false);
  std::size_t arrived = 0, working = 0;
  std::atomic<std::uint64_t> round = 0;  // written under the lock

  // Waits a little without sleeping: a thread that sleeps, or lets others run, gets its processor
  // back only milliseconds later where there is other work.
  bool is_over_soon(std::uint64_t begun) const {
    constexpr std::chrono::microseconds kAlone{50}, kSpin{2000};
    const auto start = Clock::now();
    for (auto now = start; now - start < kSpin; now = Clock::now()) {
      if (now - start > kAlone) sched_yield();  // there may be more ranks than processors
      for (int look = 0; look < 64; ++look) {
        if (round.load(std::memory_order_acquire) != begun) return true;
      }
    }
    return false;
  }
};

// The meetings that the ranks of a world share, made by whoever comes first.
struct Meetings {
  std::mutex mutex;
  std::map<std::pair<std::vector<int>, bool>, std::shared_ptr<Meeting>> by_members;

  // `later`: of what goes on while the ranks compute, and meets for other collectives.
  std::shared_ptr<Meeting> of(const std::vector<int>& members, bool later) {
    const std::scoped_lock lock(mutex);
    std::shared_ptr<Meeting>& found = by_members[{members, later}];
    if (found == nullptr) found = std::make_shared<Meeting>(members);
    return found;
  }
};

template <Reduction kind, typename T>
T reduced(T a, T b) {
  if constexpr (kind == Reduction::kSum) return T(a + b);
  // As numpy's maximum and minimum: NaN wins.
  if constexpr (kind == Reduction::kMax) return (a > b || a != a) ? a : b;
  if constexpr (kind == Reduction::kMin) return (a < b || a != a) ? a : b;
}

constexpr std::int64_t kBlock = 4096;  // elements that stay in the nearest cache
constexpr std::int64_t kGrain = 16384;

// Elements [begin, end) of all `in`, in the order of ranks, into each of `out`. Within a block
// everything is read before anything is written: `in` and `out` of a rank may be one.
template <Reduction kind, typename T>
void reduce_range(std::span<const Offer> offers, std::int64_t begin, std::int64_t end,
                  std::int64_t in_shift, std::span<char* const> out) {
  std::array<T, kBlock> sum;
  for (std::int64_t at = begin; at < end; at += kBlock) {
    const std::int64_t n = std::min(kBlock, end - at);
    const auto from = [&](const Offer& o) {
      return reinterpret_cast<const T*>(o.in) + in_shift + at;
    };
    std::copy_n(from(offers[0]), n, sum.data());
    for (const Offer& offer : offers.subspan(1)) {
      const T* more = from(offer);
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i)
        sum[std::size_t(i)] = reduced<kind>(sum[std::size_t(i)], more[i]);
    }
    for (char* target : out) std::copy_n(sum.data(), n, reinterpret_cast<T*>(target) + at);
  }
}

template <typename T>
void reduce_typed(Reduction reduction, std::span<const Offer> offers, std::int64_t begin,
                  std::int64_t end, std::int64_t in_shift, std::span<char* const> out) {
  parallel_for(end - begin, kGrain, [&](std::int64_t b, std::int64_t e) {
    const auto run = [&]<Reduction kind>() {
      reduce_range<kind, T>(offers, begin + b, begin + e, in_shift, out);
    };
    switch (reduction) {
      case Reduction::kSum:
        return run.template operator()<Reduction::kSum>();
      case Reduction::kMax:
        return run.template operator()<Reduction::kMax>();
      case Reduction::kMin:
        return run.template operator()<Reduction::kMin>();
    }
  });
}

// `in_shift`: elements to skip in every `in`.
void reduce(const Offer& what, std::span<const Offer> offers, std::int64_t begin, std::int64_t end,
            std::int64_t in_shift, std::span<char* const> out) {
  const auto run = [&]<typename T>() {
    reduce_typed<T>(what.reduction, offers, begin, end, in_shift, out);
  };
  switch (what.dtype) {
    case DType::kFloat32:
      return run.template operator()<float>();
    case DType::kFloat64:
      return run.template operator()<double>();
    case DType::kInt32:
      return run.template operator()<std::int32_t>();
    case DType::kInt64:
      return run.template operator()<std::int64_t>();
    case DType::kUint8:
      return run.template operator()<std::uint8_t>();
    case DType::kBool:
      fail("bool values cannot be reduced");
  }
}

void copy(char* to, const char* from, std::size_t bytes) {
  if (to == from) return;
  parallel_for(std::int64_t(bytes), 4 * kGrain, [=](std::int64_t begin, std::int64_t end) {
    std::memcpy(to + begin, from + begin, std::size_t(end - begin));
  });
}

class Local final : public Communicator {
 public:
  Local(std::shared_ptr<World> world, std::shared_ptr<Meetings> meetings,
        const std::vector<int>& members, int own)
      : Communicator(own, int(members.size())),
        world_(std::move(world)),
        meetings_(std::move(meetings)),
        meeting_(meetings_->of(members, false)),
        later_(meetings_->of(members, true)) {}  // the members' ranks in the world

  void all_reduce(const void* in, void* out, std::int64_t count, DType dtype,
                  Reduction reduction) override {
    all_reduce(*meeting_, {Kind::kAllReduce, bytes(in), bytes(out), count, dtype, reduction});
  }

  std::future<std::string> start_all_reduce(const void* in, void* out, std::int64_t count,
                                            DType dtype, Reduction reduction) override {
    const Offer offer{Kind::kAllReduce, bytes(in), bytes(out), count, dtype, reduction};
    return background_.start([this, offer] { all_reduce(*later_, offer); });
  }

  void all_gather(const void* in, void* out, std::int64_t count, DType dtype) override {
    meet(*meeting_, {Kind::kAllGather, bytes(in), bytes(out), count, dtype}, [&] {
      const std::size_t each = std::size_t(count) * size_of(dtype);
      char* to = bytes(out);
      for (const Offer& offer : meeting_->offers) {
        copy(to, offer.in, each);
        to += each;
      }
    });
  }

  void broadcast(const void* in, void* out, std::int64_t count, DType dtype, int root) override {
    require(root >= 0 && root < size(), "root ", root, " of ", size(), " ranks");
    meet(*meeting_, {Kind::kBroadcast, bytes(in), bytes(out), count, dtype, Reduction::kSum, root},
         [&] {
           const Offer& from = meeting_->offers[std::size_t(root)];
           copy(bytes(out), from.in, std::size_t(count) * size_of(dtype));
         });
  }

  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype,
                      Reduction reduction) override {
    const Offer offer{Kind::kReduceScatter, bytes(in), bytes(out), count, dtype, reduction};
    meet(*meeting_, offer, [&] {
      const std::array<char*, 1> target{offer.out};
      reduce(offer, meeting_->offers, 0, count, count * rank(), target);
    });
  }

  void abort(const std::string& reason) noexcept override {
    const std::scoped_lock lock(world_->mutex);
    if (!world_->failure) world_->failure = reason;
    world_->changed.notify_all();
  }

 private:
  static const char* bytes(const void* pointer) { return static_cast<const char*>(pointer); }
  static char* bytes(void* pointer) { return static_cast<char*>(pointer); }

  std::unique_ptr<Communicator> connect(const std::vector<int>& members, int own) override {
    std::vector<int> in_world;
    for (const int member : members) in_world.push_back(meeting_->members[std::size_t(member)]);
    return std::make_unique<Local>(world_, meetings_, in_world, own);
  }

  void all_reduce(Meeting& m, const Offer& offer) {
    meet(m, offer, [&] {
      std::vector<char*> targets;
      for (const Offer& other : m.offers) targets.push_back(other.out);
      const std::int64_t begin = offer.count * rank() / size();
      const std::int64_t end = offer.count * (rank() + 1) / size();
      reduce(offer, m.offers, begin, end, 0, targets);
    });
  }

  template <typename Work>
  void meet(Meeting& m, const Offer& offer, const Work& work) {
    arrive(m, offer);
    std::exception_ptr error;
    try {
      require_equal_offers(m);
      work();
    } catch (...) {  // the others still wait for this rank to be done
      error = std::current_exception();
    }
    leave(m);
    try {
      if (error) std::rethrow_exception(error);
    } catch (const std::exception& reason) {
      abort(reason.what());
      throw;
    }
  }

  // Until all have come. Whoever gives up lets the world fail, so that no memory is looked at that
  // its owner has left behind.
  void arrive(Meeting& m, const Offer& offer) {
    std::unique_lock lock(world_->mutex);
    throw_failure();
    m.offers[std::size_t(rank())] = offer;
    m.here[std::size_t(rank())] = true;
    if (++m.arrived == m.offers.size()) {
      m.arrived = 0;
      m.working = m.offers.size();
      std::fill(m.here.begin(), m.here.end(), false);
      return begin_round(m);
    }
    const auto limit = collective_limit();
    if (await_round(m, lock, limit)) return;
    if (!world_->failure) {
      world_->failure = "waited " + shown(limit.count()) + " s (MB_COLLECTIVE_TIMEOUT) for " +
                        missing(m) + " in " + offer.text();
      world_->changed.notify_all();
    }
    throw_failure();
  }

  // Until all are done: they only copy and add now, so this needs no limit.
  void leave(Meeting& m) {
    std::unique_lock lock(world_->mutex);
    if (--m.working == 0) return begin_round(m);
    await_round(m, lock, std::nullopt);
  }

  void begin_round(Meeting& m) {
    ++m.round;
    world_->changed.notify_all();
  }

  // Until the next round begins; with a limit false when it is over, or the world fails, before:
  // then the lock is held.
  bool await_round(Meeting& m, std::unique_lock<std::mutex>& lock,
                   std::optional<std::chrono::duration<double>> limit) {
    const std::uint64_t round = m.round;
    lock.unlock();
    if (m.is_over_soon(round)) return true;
    lock.lock();
    const auto begun = [&] { return m.round != round; };
    if (limit) {
      world_->changed.wait_for(lock, *limit, [&] { return begun() || world_->failure; });
    } else {
      world_->changed.wait(lock, begun);
    }
    return begun();
  }

  void throw_failure() const {
    if (world_->failure) fail(*world_->failure);
  }

  static void require_equal_offers(const Meeting& m) {
    const std::vector<Offer>& offers = m.offers;
    for (std::size_t i = 1; i < offers.size(); ++i) {
      require(offers[i].agrees(offers[0]), "the ranks do not agree: rank ", m.members[0], " calls ",
              offers[0].text(), ", rank ", m.members[i], " calls ", offers[i].text());
    }
  }

  static std::string missing(const Meeting& m) {
    std::string names;
    for (std::size_t i = 0; i < m.members.size(); ++i) {
      if (m.here[i]) continue;
      names += (names.empty() ? "rank " : ", rank ") + std::to_string(m.members[i]);
    }
    return names;
  }

  static std::string shown(double seconds) {
    std::ostringstream text;
    text << seconds;
    return text.str();
  }

  std::shared_ptr<World> world_;
  std::shared_ptr<Meetings> meetings_;
  std::shared_ptr<Meeting> meeting_, later_;
  Background background_;  // last: its thread ends first
};

}  // namespace

std::vector<std::shared_ptr<Communicator>> make_local(int size) {
  require(size >= 1, "expected at least 1 rank, found ", size);
  const auto world = std::make_shared<World>();
  const auto meetings = std::make_shared<Meetings>();
  std::vector<int> everyone;
  for (int rank = 0; rank < size; ++rank) everyone.push_back(rank);
  std::vector<std::shared_ptr<Communicator>> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.push_back(std::make_shared<Local>(world, meetings, everyone, rank));
  }
  return ranks;
}

}  // namespace mb
