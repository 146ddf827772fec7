// What has been placed so far, in ascending order of offsets, in chunks that are cheap to grow.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mb::planner {

struct Placed {
  std::int64_t offset, top;
  int first, last;  // sections of its lifetime
};

class Shelf {
 public:
  void insert(const Placed& placed) {
    ++count_;
    if (chunks_.empty()) {
      chunks_.push_back({placed});
      return;
    }
    auto chunk = std::upper_bound(
        chunks_.begin(), chunks_.end(), placed.offset,
        [](std::int64_t offset, const Chunk& c) { return offset < c.front().offset; });
    if (chunk != chunks_.begin()) --chunk;
    auto at =
        std::upper_bound(chunk->begin(), chunk->end(), placed.offset,
                         [](std::int64_t offset, const Placed& p) { return offset < p.offset; });
    chunk->insert(at, placed);
    if (chunk->size() < 2 * kChunk) return;
    Chunk upper(chunk->begin() + kChunk, chunk->end());
    chunk->resize(kChunk);
    chunks_.insert(chunk + 1, std::move(upper));
  }

  std::int64_t count() const { return count_; }

  // Calls gap(begin, end) for each gap that is free in the sections [first, last), from below,
  // until it returns true; the last one is endless.
  template <typename Gap>
  void gaps(int first, int last, std::int64_t endless, Gap gap) const {
    std::int64_t top = 0;
    for (const Chunk& chunk : chunks_) {
      for (const Placed& p : chunk) {
        if (p.first >= last || p.last <= first) continue;
        if (p.offset > top && gap(top, p.offset)) return;
        top = std::max(top, p.top);
      }
    }
    gap(top, endless);
  }

 private:
  static constexpr std::size_t kChunk = 128;
  using Chunk = std::vector<Placed>;
  std::vector<Chunk> chunks_;
  std::int64_t count_ = 0;
};

// Shelves for windows of time, so that a short lifetime only meets what is live near it.
class Shelves {
 public:
  explicit Shelves(int sections)
      : half_(std::max(1, sections / kWindows)), windows_(sections / half_ + 2) {}

  void insert(const Placed& placed) {
    all_.insert(placed);
    for (int w = std::max(0, placed.first / half_ - 1); w <= (placed.last - 1) / half_; ++w) {
      windows_[w].insert(placed);
    }
  }

  // The smallest shelf that holds everything live in the sections [first, last).
  const Shelf& around(int first, int last) const {
    const int window = first / half_;
    return last <= (window + 2) * half_ ? windows_[window] : all_;
  }

 private:
  static constexpr int kWindows = 64;
  int half_;  // window w covers the sections [w * half_, (w + 2) * half_)
  Shelf all_;
  std::vector<Shelf> windows_;
};

}  // namespace mb::planner
