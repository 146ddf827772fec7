// What all communicators share: groups, the time limit, agreement, exchange of bytes.
#include "mb/communicator.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace mb {
namespace {

std::atomic<double>& limit() {
  static std::atomic<double> seconds = 300;
  return seconds;
}

class Alone final : public Communicator {
 public:
  Alone() : Communicator(0, 1) {}
  void all_reduce(const void* in, void* out, std::int64_t count, DType dtype, Reduction) override {
    if (out != in) std::memcpy(out, in, std::size_t(count) * size_of(dtype));
  }
  std::future<std::string> start_all_reduce(const void* in, void* out, std::int64_t count,
                                            DType dtype, Reduction reduction) override {
    all_reduce(in, out, count, dtype, reduction);
    std::promise<std::string> done;
    done.set_value({});
    return done.get_future();
  }
  void all_gather(const void* in, void* out, std::int64_t count, DType dtype) override {
    all_reduce(in, out, count, dtype, Reduction::kSum);
  }
  void broadcast(const void* in, void* out, std::int64_t count, DType dtype, int) override {
    all_reduce(in, out, count, dtype, Reduction::kSum);
  }
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype,
                      Reduction reduction) override {
    all_reduce(in, out, count, dtype, reduction);
  }
  void abort(const std::string&) noexcept override {}

 private:
  std::unique_ptr<Communicator> connect(const std::vector<int>&, int) override {
    fail("one rank has no groups");
  }
};

// The lines of `text`.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

// FNV-1a: the same on every machine.
std::int64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ std::uint8_t(c)) * 0x100000001b3;
  return std::int64_t(hash);
}

// What a rank is about to do with all others.
enum class Call : std::int64_t { kRun, kExchange };
constexpr std::array<std::string_view, 2> kCallNames{"begins a run",
                                                     "exchanges values outside of a graph"};

// Every rank's number, once it is sure that all are about to do the same.
std::vector<std::int64_t> announce(Communicator& world, Call call, std::int64_t number) {
  const std::array<std::int64_t, 2> own{std::int64_t(call), number};
  std::vector<std::int64_t> all(2 * std::size_t(world.size())), numbers;
  world.all_gather(own.data(), all.data(), 2, DType::kInt64);
  for (std::size_t rank = 0; 2 * rank < all.size(); ++rank) {
    const std::int64_t theirs = all[2 * rank];
    require(theirs == own[0], "rank ", rank, " ", kCallNames.at(std::size_t(theirs)),
            ", this rank ", kCallNames[std::size_t(call)]);
    numbers.push_back(all[2 * rank + 1]);
  }
  return numbers;
}

// The line of each rank where two texts part.
std::string first_difference(std::string_view a, std::string_view b, int rank_of_b) {
  const auto ours = lines_of(a), theirs = lines_of(b);
  std::size_t at = 0;
  while (at < ours.size() && at < theirs.size() && ours[at] == theirs[at]) ++at;
  const auto shown = [at](const std::vector<std::string_view>& lines) {
    return at < lines.size() ? std::string(lines[at]) : std::string("nothing more");
  };
  return "\n  rank 0: " + shown(ours) + "\n  rank " + std::to_string(rank_of_b) + ": " +
         shown(theirs);
}

}  // namespace

Reduction reduction_from_name(std::string_view name) {
  const auto found = std::find(kReductionNames.begin(), kReductionNames.end(), name);
  if (found == kReductionNames.end()) fail("unknown reduction ", name, "; known: sum, max, min");
  return Reduction(found - kReductionNames.begin());
}

Communicator& Communicator::group(std::span<const std::int64_t> colors) {
  require(colors.size() == std::size_t(size_), "the group is one of ", colors.size(),
          " ranks, here are ", size_);
  std::vector<int> members;
  int own = 0;
  for (int rank = 0; rank < size_; ++rank) {
    if (colors[std::size_t(rank)] != colors[std::size_t(rank_)]) continue;
    if (rank == rank_) own = int(members.size());
    members.push_back(rank);
  }
  if (int(members.size()) == size_) return *this;
  const std::scoped_lock lock(mutex_);
  std::unique_ptr<Communicator>& known = groups_[members];
  if (known == nullptr) known = members.size() == 1 ? make_alone() : connect(members, own);
  return *known;
}

std::unique_ptr<Communicator> make_alone() { return std::make_unique<Alone>(); }

std::chrono::duration<double> collective_limit() {
  return std::chrono::duration<double>(limit().load());
}

void set_collective_limit(double seconds) { limit() = seconds; }

std::vector<std::string> exchange(Communicator& world, const std::string& bytes) {
  const auto sizes = announce(world, Call::kExchange, std::int64_t(bytes.size()));
  const std::int64_t largest = *std::max_element(sizes.begin(), sizes.end());
  std::string padded = bytes, all(sizes.size() * std::size_t(largest), '\0');
  padded.resize(std::size_t(largest));
  world.all_gather(padded.data(), all.data(), largest, DType::kUint8);
  std::vector<std::string> found;
  for (std::size_t rank = 0; rank < sizes.size(); ++rank) {
    found.push_back(all.substr(rank * std::size_t(largest), std::size_t(sizes[rank])));
  }
  return found;
}

void require_agreement(Communicator& world, const std::string& text) {
  std::vector<std::int64_t> hashes;
  try {
    hashes = announce(world, Call::kRun, hash_of(text));
  } catch (const std::exception& error) {
    fail("before a run that begins with ", text.substr(0, text.find('\n')), ": ", error.what());
  }
  if (std::all_of(hashes.begin(), hashes.end(), [&](std::int64_t h) { return h == hashes[0]; })) {
    return;
  }
  const std::vector<std::string> texts = exchange(world, text);
  for (std::size_t rank = 1; rank < texts.size(); ++rank) {
    if (texts[rank] == texts[0]) continue;
    fail("the ranks run different programs; their collectives and parameters first differ in",
         first_difference(texts[0], texts[rank], int(rank)));
  }
}

}  // namespace mb
