#include "greedy.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <numeric>

#include "shelf.h"

namespace mb::planner {
namespace {

constexpr std::int64_t kEndless = std::numeric_limits<std::int64_t>::max();

using Key = double (*)(const Rectangle&, std::int64_t live);

// The larger first; ties: by size, then by the beginning of the lifetime.
std::vector<int> sorted(std::span<const Rectangle> rectangles, std::span<const std::int64_t> live,
                        Key key) {
  std::vector<int> order(rectangles.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    const Rectangle &x = rectangles[a], &y = rectangles[b];
    const double first = key(x, live[a]), second = key(y, live[b]);
    if (first != second) return first > second;
    return x.size != y.size ? x.size > y.size : x.lower < y.lower;
  });
  return order;
}

double duration(const Rectangle& r) { return double(r.upper - r.lower); }

constexpr Key kKeys[] = {
    [](const Rectangle& r, std::int64_t) { return double(r.size); },
    [](const Rectangle& r, std::int64_t) { return double(r.size) * duration(r); },
    [](const Rectangle& r, std::int64_t) { return duration(r); },
    [](const Rectangle& r, std::int64_t) { return -double(r.lower); },
    [](const Rectangle&, std::int64_t live) { return double(live); },
    [](const Rectangle& r, std::int64_t) { return double(r.upper); },
    [](const Rectangle& r, std::int64_t live) { return double(live) * duration(r); },
    [](const Rectangle& r, std::int64_t live) { return double(live) * double(r.size); },
};
constexpr int kKeyCount = int(std::size(kKeys));
static_assert(kAttempts == 2 * kKeyCount + 2);

// What is live at the peak stands on the ground, ordered by `key`; the rest hangs from the top.
Attempt two_ended(std::span<const Rectangle> rectangles, std::span<const std::int64_t> live,
                  Key key) {
  const Sections sections(rectangles);
  const std::vector<std::int64_t> bytes = live_bytes(rectangles, sections);
  const auto peak = std::max_element(bytes.begin(), bytes.end());
  const int section = int(peak - bytes.begin());
  Attempt attempt{sorted(rectangles, live, key), Fit::kLowest, {}, *peak};
  for (std::size_t r = 0; r < rectangles.size(); ++r) {
    attempt.from_top.push_back(section < sections.first[r] || section >= sections.last[r]);
  }
  std::stable_partition(attempt.order.begin(), attempt.order.end(),
                        [&](int r) { return !attempt.from_top[r]; });
  return attempt;
}

std::int64_t lowest(const Shelf& shelf, int first, int last, std::int64_t size) {
  std::int64_t found = 0;
  shelf.gaps(first, last, kEndless, [&](std::int64_t begin, std::int64_t end) {
    found = begin;
    return end - begin >= size;
  });
  return found;
}

std::int64_t tightest(const Shelf& shelf, int first, int last, std::int64_t size) {
  std::int64_t found = 0, room = kEndless;
  shelf.gaps(first, last, kEndless, [&](std::int64_t begin, std::int64_t end) {
    if (end == kEndless ? room == kEndless : end - begin >= size && end - begin < room) {
      found = begin;
      room = end - begin;
    }
    return room == size;
  });
  return found;
}

// -1: there is none.
std::int64_t highest(const Shelf& shelf, int first, int last, std::int64_t size,
                     std::int64_t ceiling) {
  std::int64_t found = -1;
  shelf.gaps(first, last, kEndless, [&](std::int64_t begin, std::int64_t end) {
    end = std::min(end, ceiling);
    if (end - begin >= size) found = end - size;
    return false;
  });
  return found;
}

}  // namespace

Attempt attempt(int number, std::span<const Rectangle> rectangles) {
  const std::vector<std::int64_t> live = live_beside(rectangles);
  if (number >= 2 * kKeyCount) {
    return two_ended(rectangles, live, number % 2 == 0 ? kKeys[3] : kKeys[0]);
  }
  const Fit fit = number % 2 == 0 ? Fit::kLowest : Fit::kTightest;
  return {sorted(rectangles, live, kKeys[number / 2]), fit, {}, 0};
}

std::vector<std::int64_t> place(std::span<const Rectangle> rectangles, const Sections& sections,
                                const Attempt& attempt, std::int64_t& work) {
  std::vector<std::int64_t> offsets(rectangles.size(), 0);
  Shelves shelves(int(sections.times.size()));
  for (const int r : attempt.order) {
    const int first = sections.first[r], last = sections.last[r];
    const std::int64_t size = rectangles[r].size;
    if (size == 0 || first == last) continue;
    const Shelf& shelf = shelves.around(first, last);
    work -= 1 + shelf.count() / 4;
    std::int64_t offset = -1;
    if (!attempt.from_top.empty() && attempt.from_top[r]) {
      offset = highest(shelf, first, last, size, attempt.ceiling);
    }
    if (offset < 0) {
      offset = attempt.fit == Fit::kLowest ? lowest(shelf, first, last, size)
                                           : tightest(shelf, first, last, size);
    }
    offsets[r] = offset;
    shelves.insert({offset, offset + size, first, last});
  }
  return offsets;
}

}  // namespace mb::planner
