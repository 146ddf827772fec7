// Collectives: the only kernels that talk to other ranks.
#include <cstring>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "mb/communicator.h"
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

// The ranks that the attribute `colors` joins with this one.
Communicator& group_of(const Call& call) {
  const std::vector<std::int64_t>& colors = call.attrs.integers("colors");
  if (call.world != nullptr) return call.world->group(colors);
  require(colors.size() == 1, "the group is one of ", colors.size(),
          " ranks, this program has one");
  static const std::unique_ptr<Communicator> alone = make_alone();
  return *alone;
}

// Several values that travel as one message: each begins at a multiple of a cache line. This is the
// same on every rank, wherever its values lie.
struct Message {
  explicit Message(std::span<const Tensor> tensors) : parts(tensors.begin(), tensors.end()) {
    for (const Tensor& part : parts) {
      places.push_back(bytes);
      bytes += (part.bytes() + kLine - 1) / kLine * kLine;
    }
    if (!parts.empty()) bytes = places.back() + parts.back().bytes();
  }

  // Do the values lie in memory as they travel? Nobody owns what is between them.
  bool in_one_piece() const {
#ifdef MB_GUARD_SLOTS
    return parts.size() == 1;  // what is between slots is out of bounds
#else
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (pointer(i) != pointer(0) + places[i]) return false;
    }
    return true;
#endif
  }
  void pack(char* to) const {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      std::memcpy(to + places[i], pointer(i), parts[i].bytes());
    }
  }
  void unpack(const char* from) const {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      std::memcpy(pointer(i), from + places[i], parts[i].bytes());
    }
  }
  char* pointer(std::size_t i) const { return static_cast<char*>(parts[i].pointer); }

  static constexpr std::size_t kLine = 64;
  std::vector<Tensor> parts;
  std::vector<std::size_t> places;  // bytes from the message's beginning
  std::size_t bytes = 0;
};

// One all-reduce of several values. In place where lowering has laid them side by side, as it does
// but for odd cases (a constant among them, one that is read later); those are copied through
// memory of the kernel's own.
class AllReduce {
 public:
  explicit AllReduce(const Call& call)
      : group_(group_of(call)),
        reduction_(reduction_from_name(call.attrs.text("reduction"))),
        dtype_(call.in(0).dtype),
        in_(call.inputs),
        out_(call.outputs),
        count_(std::int64_t(in_.bytes / size_of(dtype_))) {
    if (!in_.in_one_piece() || !out_.in_one_piece()) buffer_.resize(in_.bytes);
  }

  void run() {
    pack();
    group_.all_reduce(from(), to(), count_, dtype_, reduction_);
    unpack();
  }
  void start() {
    pack();
    done_ = group_.start_all_reduce(from(), to(), count_, dtype_, reduction_);
  }
  void wait() {
    const std::string error = done_.get();
    require(error.empty(), error);
    unpack();
  }

 private:
  const char* from() const { return buffer_.empty() ? in_.pointer(0) : buffer_.data(); }
  char* to() { return buffer_.empty() ? out_.pointer(0) : buffer_.data(); }
  void pack() {
    if (!buffer_.empty()) in_.pack(buffer_.data());
  }
  void unpack() const {
    if (!buffer_.empty()) out_.unpack(buffer_.data());
  }

  Communicator& group_;
  Reduction reduction_;
  DType dtype_;
  Message in_, out_;
  std::int64_t count_;
  std::vector<char> buffer_;
  std::future<std::string> done_;
};

Launch bind_all_reduce(const Call& call) {
  return [it = std::make_shared<AllReduce>(call)](Stream&) { it->run(); };
}

StartAndWait bind_all_reduce_later(const Call& call) {
  const auto it = std::make_shared<AllReduce>(call);
  return {[it](Stream&) { it->start(); }, [it](Stream&) { it->wait(); }};
}

Launch bind_all_gather(const Call& call) {
  Communicator& group = group_of(call);
  const Tensor x = call.in(0), y = call.out();
  return [&group, x, y](Stream&) { group.all_gather(x.pointer, y.pointer, x.count(), x.dtype); };
}

Launch bind_reduce_scatter(const Call& call) {
  Communicator& group = group_of(call);
  const Tensor x = call.in(0), y = call.out();
  return [&group, x, y](Stream&) {
    group.reduce_scatter(x.pointer, y.pointer, y.count(), x.dtype, Reduction::kSum);
  };
}

Launch bind_broadcast(const Call& call) {
  Communicator& group = group_of(call);
  const Tensor x = call.in(0), y = call.out();
  const int root = int(call.attrs.integer("root"));
  return [&group, x, y, root](Stream&) {
    group.broadcast(x.pointer, y.pointer, x.count(), x.dtype, root);
  };
}

// The sum on the root, zeros elsewhere.
Launch bind_reduce_to_root(const Call& call) {
  Communicator& group = group_of(call);
  const Tensor x = call.in(0), y = call.out();
  const int root = int(call.attrs.integer("root"));
  return [&group, x, y, root](Stream&) {
    group.all_reduce(x.pointer, y.pointer, x.count(), x.dtype, Reduction::kSum);
    if (group.rank() != root) std::memset(y.pointer, 0, y.bytes());
  };
}

// What one rank gives and what all give, in doubles: count, means, sums of squared deviations.
std::size_t packet(const Call& call) { return 1 + 2 * std::size_t(call.in(1).count()); }

std::size_t workspace_merge(const Call& call) {
  const std::size_t ranks = call.attrs.integers("colors").size();
  return (1 + ranks) * packet(call) * sizeof(double);
}

// Merges the ranks' moments in their order (Chan's formula), in double.
void merge(std::span<const double> packets, std::size_t channels, double* count, double* mean,
           double* m2) {
  const std::size_t each = 1 + 2 * channels;
  *count = 0;
  std::fill_n(mean, channels, 0.0);
  std::fill_n(m2, channels, 0.0);
  for (std::size_t at = 0; at < packets.size(); at += each) {
    const double* p = &packets[at];
    const double more = p[0];
    if (more == 0) continue;
    const double share = more / (*count + more), weight = *count * share;
    const double* their_mean = p + 1;
    const double* their_m2 = their_mean + channels;
    for (std::size_t c = 0; c < channels; ++c) {
      const double delta = their_mean[c] - mean[c];
      mean[c] += delta * share;
      m2[c] += their_m2[c] + delta * delta * weight;
    }
    *count += more;
  }
}

template <typename T>
Launch merge_moments(const Call& call) {
  Communicator& group = group_of(call);
  const std::size_t channels = std::size_t(call.in(1).count());
  const T* const count = call.in(0).data<T>();
  const T* const mean = call.in(1).data<T>();
  const T* const m2 = call.in(2).data<T>();
  T* const all_count = call.out(0).data<T>();
  T* const all_mean = call.out(1).data<T>();
  T* const all_m2 = call.out(2).data<T>();
  double* const own = static_cast<double*>(call.workspace.pointer);
  return [=, &group](Stream&) {
    const std::size_t each = 1 + 2 * channels;
    double* const all = own + each;
    own[0] = double(*count);
    std::copy_n(mean, channels, own + 1);
    std::copy_n(m2, channels, own + 1 + channels);
    group.all_gather(own, all, std::int64_t(each), DType::kFloat64);
    merge({all, each * std::size_t(group.size())}, channels, own, own + 1, own + 1 + channels);
    *all_count = T(own[0]);
    std::transform(own + 1, own + 1 + channels, all_mean, [](double v) { return T(v); });
    std::transform(own + 1 + channels, own + each, all_m2, [](double v) { return T(v); });
  };
}

Launch bind_merge_moments(const Call& call) {
  return call.in(1).dtype == DType::kFloat64 ? merge_moments<double>(call)
                                             : merge_moments<float>(call);
}

}  // namespace

MB_KERNEL("all_reduce", Device::kCpu, bind_all_reduce)
MB_KERNEL("all_reduce_later", Device::kCpu, bind_all_reduce_later)
MB_KERNEL("all_gather", Device::kCpu, bind_all_gather)
MB_KERNEL("reduce_scatter", Device::kCpu, bind_reduce_scatter)
MB_KERNEL("broadcast", Device::kCpu, bind_broadcast)
MB_KERNEL("reduce_to_root", Device::kCpu, bind_reduce_to_root)
MB_KERNEL("merge_moments", Device::kCpu, bind_merge_moments, workspace_merge)

}  // namespace mb::MB_ISA
