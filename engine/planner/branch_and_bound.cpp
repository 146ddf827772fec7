// Of all solutions take one whose offsets have the least sum (ties: by rank). In it every
// rectangle stands on the ground or on another one, and none can be moved to a free place below.
// The search builds exactly this solution, in ascending order of (offset, rank), and drops a branch
// as soon as it cannot lead there:
//
// - support: where a rectangle would come to lie if it were placed now, the highest top of what is
//   placed in its lifetime. The next one goes to its support, never into a hole: holes cannot
//   arise, because what fits under a rectangle has been placed before it (dominance).
// - waiting: a rectangle that the ascending order has passed by. It may only be placed once another
//   one has been put under it, so it lies at least at the lowest top that such a one can have.
// - sections: between two neighbouring ends of lifetimes the same rectangles are live. What is
//   missing there needs its bytes above the lowest offset that one of them can still get.
// - a rectangle on which nothing can come to lie lower than its top is placed without branching.
// - decomposition: when no missing rectangle crosses a point of time, both sides are solved alone.
// - a part that was once found to be unsolvable is recognised by a hash of its state.
//
// Obstacles (rectangles that already lie somewhere) take part like the others: their support is
// where they lie, and what can no longer go below one has its support above it.
#include "branch_and_bound.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>

namespace mb::planner {
namespace {

constexpr std::int64_t kInfinity = std::numeric_limits<std::int64_t>::max();

// A missing rectangle in one node of the search.
struct Item {
  int index;
  bool waiting;
  std::int64_t support;
};
using Items = std::vector<Item>;  // ascending by the lower end of the lifetime

struct Candidate {
  std::int64_t offset;
  int rank;
  int index;
};

// One part of a problem: which rectangle may come next, and what is left after the one tried now.
struct Node {
  Items items;
  std::uint64_t hash = 0;
  std::vector<Candidate> candidates;
  std::size_t tried = 0;
  std::vector<Items> parts;  // what the current candidate leaves: each is solved alone
  std::size_t solved = 0;
};

// The two least values of a section, so that each rectangle can ask for the least of the others.
struct Least {
  std::int64_t value = kInfinity, second = kInfinity;
  int owner = -1;

  void add(std::int64_t candidate, int index) {
    if (candidate < value) {
      second = value;
      value = candidate;
      owner = index;
    } else if (candidate < second) {
      second = candidate;
    }
  }
  std::int64_t without(int index) const { return owner == index ? second : value; }
};

std::uint64_t mixed(std::uint64_t x) {  // splitmix64's finaliser
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

class Search {
 public:
  Search(std::span<const Rectangle> rectangles, std::int64_t capacity,
         const std::vector<std::int64_t>& fixed)
      : rectangles_(rectangles),
        fixed_(fixed),
        capacity_(capacity),
        offsets_(fixed),
        sections_(rectangles),
        first_(sections_.first),
        last_(sections_.last),
        rank_(rectangles.size()),
        least_(rectangles.size()),
        floors_(sections_.times.size()),
        tops_(sections_.times.size()),
        missing_(sections_.times.size() + 1) {
    for (int r = 0; r < int(rectangles.size()); ++r) {
      if (is_fixed(r)) obstacles_.push_back(r);
    }
  }

  Outcome run(std::span<const int> order, std::int64_t steps_at_most, std::int64_t& steps);
  const std::vector<std::int64_t>& offsets() const { return offsets_; }

 private:
  bool is_fixed(int index) const { return fixed_[index] >= 0; }
  bool overlap(int a, int b) const { return first_[a] < last_[b] && first_[b] < last_[a]; }
  std::int64_t size(int index) const { return rectangles_[index].size; }

  bool start(Items& items) const;
  bool place(const Items& items, const Candidate& chosen, Items& rest) const;
  bool lift(Item& item, std::int64_t top) const;
  bool refine(Items& items);
  bool sections_fit(const Items& items);
  void bound_waiting(const Items& items);
  bool take_free(Items& items);
  void split(const Items& items, std::vector<Items>& parts) const;
  void fill(Node& node) const;

  std::span<const Rectangle> rectangles_;
  const std::vector<std::int64_t>& fixed_;
  std::int64_t capacity_;
  std::vector<std::int64_t> offsets_;
  const Sections sections_;
  const std::vector<int>&first_, &last_;
  std::vector<int> rank_, obstacles_;
  std::vector<std::int64_t> least_;    // no offset of a missing rectangle is below it
  std::vector<Least> floors_, tops_;   // of each section
  std::vector<std::int64_t> missing_;  // bytes of each section
  std::vector<std::uint64_t> failed_;
};

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

bool Search::start(Items& items) const {
  for (int r = 0; r < int(rectangles_.size()); ++r) {
    items.push_back({r, false, is_fixed(r) ? fixed_[r] : -1});
  }
  std::sort(items.begin(), items.end(), [&](const Item& a, const Item& b) {
    return first_[a.index] != first_[b.index] ? first_[a.index] < first_[b.index]
                                              : a.index < b.index;
  });
  return std::all_of(items.begin(), items.end(),
                     [&](Item& item) { return is_fixed(item.index) || lift(item, 0); });
}

// What is missing after `chosen`; false when that leads to no solution.
bool Search::place(const Items& items, const Candidate& chosen, Items& rest) const {
  const std::int64_t top = chosen.offset + size(chosen.index);
  rest.clear();
  for (const Item& item : items) {
    if (item.index != chosen.index) rest.push_back(item);
  }
  for (Item& item : rest) {
    const bool passed = item.support < chosen.offset ||
                        (item.support == chosen.offset && rank_[item.index] < chosen.rank);
    if (passed && is_fixed(item.index)) return false;
    item.waiting |= passed;
    if (overlap(item.index, chosen.index) && !lift(item, top)) return false;
  }
  return true;
}

// Fills floors_ and missing_; false when a section cannot hold what it needs.
bool Search::sections_fit(const Items& items) {
  int begin = first_[items.front().index], end = begin;
  for (const Item& item : items) end = std::max(end, last_[item.index]);
  std::fill(floors_.begin() + begin, floors_.begin() + end, Least{});
  std::fill(missing_.begin() + begin, missing_.begin() + end + 1, 0);
  for (const Item& item : items) {
    const int r = item.index;
    if (least_[r] + size(r) > capacity_) return false;
    missing_[first_[r]] += size(r);
    missing_[last_[r]] -= size(r);
    for (int s = first_[r]; s < last_[r]; ++s) floors_[s].add(least_[r], r);
  }
  std::int64_t bytes = 0;
  for (int s = begin; s < end; ++s) {
    bytes += missing_[s];
    if (bytes > 0 && floors_[s].value + bytes > capacity_) return false;
  }
  return true;
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

// Places what nothing can come to lie lower than; false when such a rectangle is a waiting one,
// which could then be moved down.
bool Search::take_free(Items& items) {
  std::vector<int> taken;
  for (const Item& item : items) {
    const int r = item.index;
    const std::int64_t top = item.support + size(r);
    bool free = true;
    for (int s = first_[r]; s < last_[r] && free; ++s) free = floors_[s].without(r) >= top;
    if (!free) continue;
    if (item.waiting) return false;
    offsets_[r] = item.support;
    taken.push_back(r);
  }
  std::erase_if(items, [&](const Item& item) {
    return std::find(taken.begin(), taken.end(), item.index) != taken.end();
  });
  return true;
}

// Draws all conclusions that need no branching.
bool Search::refine(Items& items) {
  for (std::size_t before = items.size() + 1; items.size() < before && !items.empty();) {
    before = items.size();
    bool any_waiting = false;
    for (const Item& item : items) {
      least_[item.index] = item.support;
      any_waiting |= item.waiting;
    }
    if (any_waiting) bound_waiting(items);
    if (!sections_fit(items) || !take_free(items)) return false;
  }
  return true;
}

void Search::split(const Items& items, std::vector<Items>& parts) const {
  parts.clear();
  int end = -1;
  for (const Item& item : items) {
    if (first_[item.index] >= end) parts.emplace_back();
    parts.back().push_back(item);
    end = std::max(end, last_[item.index]);
  }
  // A small part is the quickest to fail.
  std::stable_sort(parts.begin(), parts.end(),
                   [](const Items& a, const Items& b) { return a.size() < b.size(); });
}

// Hash and candidates of a node.
void Search::fill(Node& node) const {
  std::int64_t lowest_top = kInfinity, lowest_obstacle = kInfinity;
  node.hash = 0;
  for (const Item& item : node.items) {
    const std::uint64_t place = (std::uint64_t(item.index) << 1) | std::uint64_t(item.waiting);
    node.hash += mixed(mixed(place + 1) + std::uint64_t(item.support));
    lowest_top = std::min(lowest_top, item.support + size(item.index));
    if (is_fixed(item.index)) lowest_obstacle = std::min(lowest_obstacle, item.support);
  }
  node.hash |= 1;  // 0 is an empty entry
  for (const Item& item : node.items) {
    if (item.waiting || item.support >= lowest_top || item.support > lowest_obstacle) continue;
    node.candidates.push_back({item.support, rank_[item.index], item.index});
  }
  std::sort(node.candidates.begin(), node.candidates.end(),
            [](const Candidate& a, const Candidate& b) {
              return a.offset != b.offset ? a.offset < b.offset : a.rank < b.rank;
            });
  auto twins = [&](const Candidate& a, const Candidate& b) {
    return first_[a.index] == first_[b.index] && last_[a.index] == last_[b.index] &&
           size(a.index) == size(b.index);
  };
  node.candidates.erase(std::unique(node.candidates.begin(), node.candidates.end(), twins),
                        node.candidates.end());
}

Outcome Search::run(std::span<const int> order, std::int64_t steps_at_most, std::int64_t& steps) {
  for (int k = 0; k < int(order.size()); ++k) rank_[order[k]] = k;
  failed_.assign(std::size_t(1) << 20, 0);
  const std::size_t mask = failed_.size() - 1;
  std::vector<Node> stack(1);
  Node& root = stack[0];
  root.candidates.push_back({});  // stands for "begin": its parts are those of the whole problem
  Items items;
  if (!start(items) || !refine(items)) return Outcome::kImpossible;
  split(items, root.parts);
  root.tried = 1;
  Items rest;
  while (true) {
    Node& node = stack.back();
    if (node.tried > 0 && node.solved == node.parts.size()) {  // all of this node is placed
      stack.pop_back();
      if (stack.empty()) return Outcome::kSolved;
      ++stack.back().solved;
      continue;
    }
    if (node.tried > 0 && node.solved < node.parts.size()) {  // the next part
      Node child;
      child.items = std::move(node.parts[node.solved]);
      fill(child);
      if (failed_[child.hash & mask] != child.hash) {
        stack.push_back(std::move(child));
      }
    }
    // The newest node tries its next candidate; without one it has failed, and with it the
    // candidate of its parent.
    while (true) {
      Node& open = stack.back();
      if (stack.size() == 1) return Outcome::kImpossible;
      if (open.tried == open.candidates.size()) {
        failed_[open.hash & mask] = open.hash;
        stack.pop_back();
        continue;
      }
      if (steps-- <= 0 || steps_at_most-- <= 0) return Outcome::kGaveUp;
      const Candidate chosen = open.candidates[open.tried++];
      open.solved = 0;
      offsets_[chosen.index] = chosen.offset;
      if (place(open.items, chosen, rest) && refine(rest)) {
        split(rest, open.parts);
        break;
      }
    }
  }
}

// Orders of rank: by a rectangle's duration, area and the most bytes live beside it.
std::vector<std::vector<int>> orders(std::span<const Rectangle> rectangles) {
  struct Keys {
    std::int64_t duration, area, total;
  };
  const std::vector<std::int64_t> totals = live_beside(rectangles);
  std::vector<Keys> keys;
  for (std::size_t r = 0; r < rectangles.size(); ++r) {
    const std::int64_t duration = rectangles[r].upper - rectangles[r].lower;
    keys.push_back({duration, duration * rectangles[r].size, totals[r]});
  }
  auto sorted_by = [&](auto key) {
    std::vector<int> order(rectangles.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return key(keys[a]) > key(keys[b]); });
    return order;
  };
  return {sorted_by([](const Keys& k) { return std::tuple(k.duration, k.area, k.total); }),
          sorted_by([](const Keys& k) { return std::tuple(k.total, k.area, k.duration); }),
          sorted_by([](const Keys& k) { return std::tuple(k.total, k.duration, k.area); })};
}

}  // namespace

Outcome place_below(std::span<const Rectangle> rectangles, std::int64_t capacity,
                    std::vector<std::int64_t>& offsets, std::int64_t& steps) {
  Search search(rectangles, capacity, offsets);
  const std::vector<std::vector<int>> ranked = orders(rectangles);
  for (std::int64_t round = 1000; steps > 0; round *= 2) {
    for (const std::vector<int>& order : ranked) {
      const Outcome outcome = search.run(order, round, steps);
      if (outcome == Outcome::kSolved) offsets = search.offsets();
      if (outcome != Outcome::kGaveUp) return outcome;
    }
  }
  return Outcome::kGaveUp;
}

}  // namespace mb::planner
