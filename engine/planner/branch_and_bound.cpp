// The tree of the search, and its rounds.
#include "branch_and_bound.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "search.h"

namespace mb::planner {
namespace {

std::uint64_t mixed(std::uint64_t x) {  // splitmix64's finaliser
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

}  // namespace

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
bool Search::place(const Node& node, const Candidate& chosen, Items& rest) const {
  const std::int64_t top = chosen.offset + size(chosen.index);
  rest.clear();
  for (const Item& item : node.items) {
    if (item.index != chosen.index) rest.push_back(item);
  }
  for (Item& item : rest) {
    const bool passed = inside(item, node.valley) &&
                        (item.support < chosen.offset ||
                         (item.support == chosen.offset && rank_[item.index] < chosen.rank));
    if (passed && is_fixed(item.index)) return false;
    item.waiting |= passed;
    if (overlap(item.index, chosen.index) && !lift(item, top)) return false;
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

// Extends a valley until nothing that lies partly in it is left outside; false when something in it
// has a lower top.
bool Search::widen(Valley& valley, const Items& items) const {
  for (bool wider = true; wider;) {
    wider = false;
    for (const Item& item : items) {
      const int r = item.index;
      if (!inside(item, valley)) continue;
      if (item.support + size(r) < valley.top) return false;
      if (first_[r] < valley.begin || last_[r] > valley.end) {
        valley.begin = std::min(valley.begin, first_[r]);
        valley.end = std::max(valley.end, last_[r]);
        wider = true;
      }
    }
  }
  return true;
}

// The valleys of a part, each with the lowest top in it.
std::vector<Valley> Search::valleys(const Items& items) const {
  const int begin = first_[items.front().index];
  std::vector<std::int64_t> tops;  // the lowest of each section
  for (const Item& item : items) {
    const int r = item.index;
    if (last_[r] - begin > int(tops.size())) tops.resize(last_[r] - begin, kInfinity);
    for (int s = first_[r] - begin; s < last_[r] - begin; ++s) {
      tops[s] = std::min(tops[s], item.support + size(r));
    }
  }
  std::vector<Valley> found;
  for (const Item& item : items) {
    const int r = item.index;
    Valley valley{first_[r], last_[r], item.support + size(r)};
    bool lowest = true;
    for (int s = first_[r]; s < last_[r] && lowest; ++s) lowest = tops[s - begin] >= valley.top;
    if (lowest && widen(valley, items)) found.push_back(valley);
  }
  return found;
}

// What can be the first to be placed in a valley.
std::vector<Candidate> Search::candidates(const Valley& valley, const Items& items) const {
  std::int64_t lowest_obstacle = kInfinity;
  for (const Item& item : items) {
    if (is_fixed(item.index) && inside(item, valley)) {
      lowest_obstacle = std::min(lowest_obstacle, item.support);
    }
  }
  std::vector<Candidate> found;
  for (const Item& item : items) {
    if (item.waiting || !inside(item, valley) || item.support > lowest_obstacle) continue;
    found.push_back({item.support, rank_[item.index], item.index});
  }
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.rank < b.rank;
  });
  auto twins = [&](const Candidate& a, const Candidate& b) {
    return first_[a.index] == first_[b.index] && last_[a.index] == last_[b.index] &&
           size(a.index) == size(b.index);
  };
  found.erase(std::unique(found.begin(), found.end(), twins), found.end());
  return found;
}

std::int64_t Search::failures_in(const Valley& valley) const {
  return std::accumulate(failures_.begin() + valley.begin, failures_.begin() + valley.end,
                         std::int64_t(0));
}

// Hash of a node, and its valley: one that leaves no choice, or else the one with the fewest
// choices for each failure there (as in "dom/wdeg", Boussemart et al., ECAI 2004).
void Search::open(Node& node) const {
  node.hash = seed_;
  node.work = 0;
  for (const Item& item : node.items) {
    node.work += 1 + (last_[item.index] - first_[item.index]) / 8;
    const std::uint64_t place = (std::uint64_t(item.index) << 1) | std::uint64_t(item.waiting);
    node.hash += mixed(mixed(place + 1) + std::uint64_t(item.support));
  }
  double best = 0;
  bool first = true;
  for (const Valley& valley : valleys(node.items)) {
    std::vector<Candidate> found = candidates(valley, node.items);
    const double choices = double(found.size());
    const double score = choices <= 1 ? choices - 2 : choices / double(1 + failures_in(valley));
    if (first || score < best) {
      node.valley = valley;
      node.candidates = std::move(found);
      best = score;
    }
    first = false;
  }
}

// Finds the next candidate that contradicts nothing, and the parts that it leaves.
bool Search::next_candidate(Node& node, std::int64_t& work) {
  Items rest;
  while (node.tried < node.candidates.size()) {
    const Candidate& chosen = node.candidates[node.tried++];
    work -= node.work;
    offsets_[chosen.index] = chosen.offset;
    if (!place(node, chosen, rest) || !refine(rest)) continue;
    split(rest, node.parts);
    node.solved = 0;
    return true;
  }
  unsolvable_[node.hash % kRemembered] = node.hash;
  return false;
}

Outcome Search::run(std::span<const int> order, std::int64_t& work) {
  for (int k = 0; k < int(order.size()); ++k) rank_[order[k]] = k;
  for (std::int64_t& count : failures_) count /= 8;
  seed_ = mixed(seed_ + 1);    // what cannot be solved in one order may be in another
  std::vector<Node> stack(1);  // the first stands for the whole problem
  Items items;
  if (!start(items) || !refine(items)) return Outcome::kImpossible;
  split(items, stack.back().parts);
  while (true) {
    if (stack.back().solved == stack.back().parts.size()) {
      stack.pop_back();
      if (stack.empty()) return Outcome::kSolved;
      ++stack.back().solved;
      continue;
    }
    Node part;
    part.items = std::move(stack.back().parts[stack.back().solved]);
    open(part);
    if (unsolvable_[part.hash % kRemembered] != part.hash) stack.push_back(std::move(part));
    // The newest part has failed when it has no candidate left, and with it its parent's candidate.
    while (stack.size() > 1 && !next_candidate(stack.back(), work)) stack.pop_back();
    if (stack.size() == 1) return Outcome::kImpossible;
    if (work <= 0) return Outcome::kGaveUp;
  }
}

namespace {

// Rank by the most bytes live beside a rectangle, or by its duration, the larger the earlier.
std::vector<int> ranked(std::span<const Rectangle> rectangles, bool by_bytes) {
  const std::vector<std::int64_t> live = live_beside(rectangles);
  using Key = std::tuple<double, double, double>;
  std::vector<Key> keys;
  for (std::size_t r = 0; r < rectangles.size(); ++r) {
    const double duration = double(rectangles[r].upper - rectangles[r].lower);
    const double area = duration * double(rectangles[r].size), bytes = double(live[r]);
    keys.push_back(by_bytes ? Key(bytes, duration, area) : Key(duration, area, bytes));
  }
  std::vector<int> order(rectangles.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return keys[a] > keys[b]; });
  return order;
}

}  // namespace

// Searches of growing length: a wrong choice near the root costs no more than all before it.
Outcome place_below(std::span<const Rectangle> rectangles, std::int64_t capacity,
                    std::vector<std::int64_t>& offsets, std::int64_t& work) {
  Search search(rectangles, capacity, offsets);
  const std::vector<int> by_bytes = ranked(rectangles, true);
  const std::vector<int> by_duration = ranked(rectangles, false);
  std::int64_t length = 2000 * std::int64_t(rectangles.size());
  for (int round = 0; work > 0; ++round, length += length / 2) {
    const std::int64_t most = std::min(length, work);
    std::int64_t left = most;
    const Outcome outcome = search.run(round % 4 == 3 ? by_duration : by_bytes, left);
    work -= most - left;
    if (outcome == Outcome::kSolved) offsets = search.offsets();
    if (outcome != Outcome::kGaveUp) return outcome;
  }
  return Outcome::kGaveUp;
}

}  // namespace mb::planner
