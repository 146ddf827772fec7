// What a state of the search implies: least offsets, and what can be placed without branching.
#include <algorithm>

#include "search.h"

namespace mb::planner {

// Raises a support to `top`, and further over obstacles that the rectangle no longer fits under.
bool Search::lift(Item& item, std::int64_t top) const {
  if (top <= item.support) return true;
  if (is_fixed(item.index)) return false;
  item.support = top;
  item.waiting = false;
  for (bool moved = true; moved;) {
    moved = false;
    for (const int obstacle : obstacles_) {
      if (!overlap(item.index, obstacle)) continue;
      const std::int64_t lies = fixed_[obstacle], end = lies + size(obstacle);
      if (item.support + size(item.index) > lies && item.support < end) {
        item.support = end;
        moved = true;
      }
    }
  }
  return item.support + size(item.index) <= capacity_;
}

// Fills floors_, missing_ and ends_; false when a section cannot hold what it needs. What is
// missing in a section lies there one above the other, none below its least offset: like the jobs
// of one machine with their release times, which end earliest in the order of these.
bool Search::sections_fit(const Items& items) {
  int begin = first_[items.front().index], end = begin;
  for (const Item& item : items) end = std::max(end, last_[item.index]);
  std::fill(floors_.begin() + begin, floors_.begin() + end, Least{});
  std::fill(ends_.begin() + begin, ends_.begin() + end, 0);
  std::fill(missing_.begin() + begin, missing_.begin() + end, 0);
  by_least_.clear();
  for (const Item& item : items) by_least_.push_back(item.index);
  std::sort(by_least_.begin(), by_least_.end(),
            [&](int a, int b) { return least_[a] != least_[b] ? least_[a] < least_[b] : a < b; });
  for (const int r : by_least_) {
    for (int s = first_[r]; s < last_[r]; ++s) {
      floors_[s].add(least_[r], r);
      missing_[s] += size(r);
      ends_[s] = std::max(ends_[s], least_[r]) + size(r);
      if (ends_[s] > capacity_) {
        ++failures_[s];
        return false;
      }
    }
  }
  return true;
}

// If a section would overflow unless a certain rectangle is its lowest, the others lie above it.
// True when a least offset has risen.
bool Search::force_lowest(const Items& items) {
  bool risen = false;
  for (const Item& item : items) {
    const int r = item.index;
    for (int s = first_[r]; s < last_[r]; ++s) {
      const Least& floor = floors_[s];
      if (floor.owner == r || floor.second == kInfinity) continue;
      if (floor.second + missing_[s] <= capacity_) continue;
      const std::int64_t top = floor.value + size(floor.owner);
      if (top > least_[r]) {
        least_[r] = top;
        risen = true;
      }
    }
  }
  return risen;
}

// A waiting rectangle lies on one that is still missing.
void Search::bound_waiting(const Items& items) {
  int begin = first_[items.front().index], end = begin;
  for (const Item& item : items) end = std::max(end, last_[item.index]);
  std::fill(tops_.begin() + begin, tops_.begin() + end, Least{});
  for (const Item& item : items) {
    const int r = item.index;
    for (int s = first_[r]; s < last_[r]; ++s) tops_[s].add(least_[r] + size(r), r);
  }
  for (const Item& item : items) {
    if (!item.waiting) continue;
    const int r = item.index;
    std::int64_t lowest = kInfinity;
    for (int s = first_[r]; s < last_[r]; ++s) lowest = std::min(lowest, tops_[s].without(r));
    least_[r] = lowest == kInfinity ? capacity_ : std::max(least_[r], lowest);
  }
}

// Places what nothing can come to lie lower than. False when one of these could then be moved down:
// a waiting one, or one whose least offset is higher.
bool Search::take_free(Items& items) {
  std::vector<Item> taken;
  for (const Item& item : items) {
    const int r = item.index;
    const std::int64_t top = item.support + size(r);
    bool free = true;
    for (int s = first_[r]; s < last_[r] && free; ++s) free = floors_[s].without(r) >= top;
    if (!free) continue;
    if (item.waiting || least_[r] > item.support) {
      ++failures_[first_[r]];
      return false;
    }
    offsets_[r] = item.support;
    taken.push_back(item);
  }
  for (const Item& item : taken) {
    std::erase_if(items, [&](const Item& other) { return other.index == item.index; });
    for (Item& other : items) {
      if (!overlap(item.index, other.index)) continue;
      if (!lift(other, item.support + size(item.index))) return false;
    }
  }
  return true;
}

// Draws all conclusions that need no branching; false when there is no solution.
bool Search::refine(Items& items) {
  for (std::size_t before = items.size() + 1; items.size() < before && !items.empty();) {
    before = items.size();
    bool any_waiting = false;
    for (const Item& item : items) {
      least_[item.index] = item.support;
      any_waiting |= item.waiting;
    }
    if (any_waiting) bound_waiting(items);
    do {
      if (!sections_fit(items)) return false;
    } while (force_lowest(items));
    if (!take_free(items)) return false;
  }
  return true;
}

}  // namespace mb::planner
