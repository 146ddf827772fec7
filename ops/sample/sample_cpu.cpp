// Balanced sampling: the candidates with the smallest random numbers, kept in bounded heaps.
#include "mb/kernel.h"
#include "mb/random.h"

namespace mb::MB_ISA {
namespace {

constexpr std::int64_t kChunk = 256;  // candidates whose random numbers are drawn together

struct Candidate {
  std::uint64_t priority;
  std::int64_t index;
  bool operator<(const Candidate& other) const {
    return priority != other.priority ? priority < other.priority : index < other.index;
  }
};

// The `capacity` smallest candidates seen so far; the largest of them on top.
struct Heap {
  Candidate* items;
  std::int64_t capacity;
  std::int64_t size = 0;

  void offer(const Candidate& c) {
    if (size < capacity) {
      items[size++] = c;
      std::push_heap(items, items + size);
    } else if (capacity > 0 && c < items[0]) {
      std::pop_heap(items, items + size);
      items[size - 1] = c;
      std::push_heap(items, items + size);
    }
  }

  // Writes the indices of the `most` smallest in rising order; returns how many there are.
  std::int64_t write(std::int64_t most, std::int32_t* to) {
    std::sort(items, items + size);
    const std::int64_t n = std::min(size, most);
    for (std::int64_t i = 0; i < n; ++i) to[i] = std::int32_t(items[i].index);
    std::sort(to, to + n);
    return n;
  }
};

std::size_t workspace_sample(const Call& call) {
  const std::int64_t rows = call.attrs.integer("rows");
  return std::size_t(call.in(0).dim(0) * 2 * rows) * sizeof(Candidate);
}

Launch bind_sample(const Call& call) {
  const std::int64_t images = call.in(0).dim(0), size = call.in(0).dim(1);
  const std::int64_t rows = call.attrs.integer("rows");
  const std::int64_t most = call.attrs.integer("most_positive");
  const auto salt = std::uint64_t(call.attrs.integer("salt"));
  const std::int32_t* matches = call.in(0).data<std::int32_t>();
  const std::int64_t* key = call.in(1).data<std::int64_t>();
  const std::int64_t keys = call.in(1).dim(0);
  auto* indices = call.out(0).data<std::int32_t>();
  auto* positives = call.out(1).data<std::int32_t>();
  auto* total = call.out(2).data<std::int32_t>();
  auto* memory = static_cast<Candidate*>(call.workspace.pointer);
  return [=](Stream&) {
    parallel_each(images, [&](std::int64_t n) {
      Heap positive{memory + n * 2 * rows, most}, negative{memory + (n * 2 + 1) * rows, rows};
      const std::int32_t* row = matches + n * size;
      const auto own = std::uint64_t(key[n % keys]);
      std::uint64_t priorities[kChunk];
      for (std::int64_t first = 0; first < size; first += kChunk) {
        const std::int64_t count = std::min(kChunk, size - first);
#pragma omp simd
        for (std::int64_t i = 0; i < count; ++i) {
          priorities[i] = random_bits(own, salt, std::uint64_t(first + i));
        }
        for (std::int64_t i = 0; i < count; ++i) {
          const std::int32_t match = row[first + i];
          if (match >= -1) (match >= 0 ? positive : negative).offer({priorities[i], first + i});
        }
      }
      std::int32_t* to = indices + n * rows;
      const std::int64_t first = positive.write(most, to);
      const std::int64_t all = first + negative.write(rows - first, to + first);
      std::fill(to + all, to + rows, 0);
      positives[n] = std::int32_t(first);
      total[n] = std::int32_t(all);
    });
  };
}

}  // namespace

MB_KERNEL("sample", Device::kCpu, bind_sample, workspace_sample)

}  // namespace mb::MB_ISA
