// The search tree behind branch_and_bound.h.
//
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
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "branch_and_bound.h"
#include "rectangles.h"

namespace mb::planner {

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

// Missing rectangles that are live in [begin, end) of the sections and have their support below
// `top`: a valley. What fills it first does not depend on the others.
struct Valley {
  int begin, end;
  std::int64_t top;
};

// One part of a problem: which rectangle may come next, and what is left after the one tried now.
struct Node {
  Items items;
  Valley valley{};
  std::uint64_t hash = 0;
  std::int64_t work = 0;  // what one candidate costs
  std::vector<Candidate> candidates;
  std::size_t tried = 0;
  std::vector<Items> parts;  // what the current candidate leaves
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

constexpr std::size_t kRemembered = std::size_t(1) << 18;  // entries of the table of failures

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
        missing_(sections_.times.size()),
        ends_(sections_.times.size()),
        failures_(sections_.times.size()),
        unsolvable_(kRemembered) {
    for (int r = 0; r < int(rectangles.size()); ++r) {
      if (is_fixed(r)) obstacles_.push_back(r);
    }
  }

  // One search that ranks the rectangles by `order`. What earlier ones learned about where the
  // search fails is kept. `work` counts down by the missing rectangles of each node and the
  // sections they live in.
  Outcome run(std::span<const int> order, std::int64_t& work);
  const std::vector<std::int64_t>& offsets() const { return offsets_; }

 private:
  bool is_fixed(int index) const { return fixed_[index] >= 0; }
  bool overlap(int a, int b) const { return first_[a] < last_[b] && first_[b] < last_[a]; }
  std::int64_t size(int index) const { return rectangles_[index].size; }

  bool start(Items& items) const;
  bool place(const Node& node, const Candidate& chosen, Items& rest) const;
  bool lift(Item& item, std::int64_t top) const;
  bool refine(Items& items);
  bool sections_fit(const Items& items);
  bool force_lowest(const Items& items);
  void bound_waiting(const Items& items);
  bool take_free(Items& items);
  void split(const Items& items, std::vector<Items>& parts) const;
  bool inside(const Item& item, const Valley& valley) const {
    return item.support < valley.top && first_[item.index] < valley.end &&
           valley.begin < last_[item.index];
  }
  bool widen(Valley& valley, const Items& items) const;
  std::vector<Candidate> candidates(const Valley& valley, const Items& items) const;
  std::vector<Valley> valleys(const Items& items) const;
  void open(Node& node) const;
  bool next_candidate(Node& node, std::int64_t& work);
  std::int64_t failures_in(const Valley& valley) const;

  std::span<const Rectangle> rectangles_;
  const std::vector<std::int64_t>& fixed_;
  std::int64_t capacity_;
  std::vector<std::int64_t> offsets_;
  const Sections sections_;
  const std::vector<int>&first_, &last_;
  std::vector<int> rank_, obstacles_;
  std::vector<std::int64_t> least_;  // no offset of a missing rectangle is below it
  std::vector<int> by_least_;
  // Of each section: the lowest missing offsets and tops, the missing bytes, up to where it must be
  // full, how often the search failed there.
  std::vector<Least> floors_, tops_;
  std::vector<std::int64_t> missing_, ends_, failures_;
  std::uint64_t seed_ = 0;
  std::vector<std::uint64_t> unsolvable_;  // hashes of parts, each in the place of its last bits
};

}  // namespace mb::planner
