#include "repair.h"

#include <algorithm>

#include "branch_and_bound.h"

namespace mb::planner {
namespace {

constexpr int kLonger = 4;     // what lives that many times longer than a window stays where it is
constexpr int kWidenings = 4;  // of a window that has no solution, each to the threefold

class Repair {
 public:
  Repair(std::span<const Rectangle> rectangles, const Sections& sections, std::int64_t target,
         std::vector<std::int64_t>& offsets)
      : rectangles_(rectangles), sections_(sections), target_(target), offsets_(offsets) {}

  // The first that reaches above the target; -1: none does.
  int first_above() const {
    int found = -1;
    for (int r = 0; r < int(rectangles_.size()); ++r) {
      if (above(r) && (found < 0 || sections_.first[r] < sections_.first[found])) found = r;
    }
    return found;
  }

  bool clear(int begin, int end, std::int64_t& work);

 private:
  bool above(int r) const { return offsets_[r] + rectangles_[r].size > target_; }
  bool lives_in(int r, int begin, int end) const {
    return sections_.first[r] < end && begin < sections_.last[r];
  }
  bool overlaps_any(int r, const std::vector<int>& others) const {
    return std::any_of(others.begin(), others.end(), [&](int other) {
      return lives_in(r, sections_.first[other], sections_.last[other]);
    });
  }
  std::vector<int> movable(int begin, int end) const;

  std::span<const Rectangle> rectangles_;
  const Sections& sections_;
  std::int64_t target_;
  std::vector<std::int64_t>& offsets_;
};

// What is placed anew in a window: short lifetimes, and all that would be an obstacle too high.
std::vector<int> Repair::movable(int begin, int end) const {
  std::vector<int> found, high;
  for (int r = 0; r < int(rectangles_.size()); ++r) {
    const bool is_short = sections_.last[r] - sections_.first[r] <= kLonger * (end - begin);
    if (lives_in(r, begin, end) && (is_short || above(r))) {
      found.push_back(r);
    } else if (above(r)) {
      high.push_back(r);
    }
  }
  for (std::size_t before = 0; before < found.size();) {
    before = found.size();
    for (const int r : high) {
      if (overlaps_any(r, found)) found.push_back(r);
    }
    std::erase_if(high,
                  [&](int r) { return std::find(found.begin(), found.end(), r) != found.end(); });
  }
  return found;
}

bool Repair::clear(int begin, int end, std::int64_t& work) {
  const std::vector<int> moved = movable(begin, end);
  std::vector<bool> is_moved(rectangles_.size());
  for (const int r : moved) is_moved[r] = true;
  std::vector<int> part = moved;
  for (int r = 0; r < int(rectangles_.size()); ++r) {
    if (!is_moved[r] && overlaps_any(r, moved)) part.push_back(r);
  }
  work -= std::int64_t(rectangles_.size());
  std::vector<Rectangle> placed;
  std::vector<std::int64_t> offsets;
  for (std::size_t k = 0; k < part.size(); ++k) {
    placed.push_back(rectangles_[part[k]]);
    offsets.push_back(k < moved.size() ? -1 : offsets_[part[k]]);
  }
  if (place_below(placed, target_, offsets, work) != Outcome::kSolved) return false;
  for (std::size_t k = 0; k < moved.size(); ++k) offsets_[moved[k]] = offsets[k];
  return true;
}

}  // namespace

bool repair(std::span<const Rectangle> rectangles, const Sections& sections, std::int64_t target,
            std::vector<std::int64_t>& offsets, std::int64_t& work) {
  Repair repair(rectangles, sections, target, offsets);
  const int count = int(sections.times.size());
  for (int high = repair.first_above(); high >= 0; high = repair.first_above()) {
    int begin = sections.first[high], end = sections.last[high];
    bool cleared = false;
    for (int widening = 0; widening < kWidenings && !cleared && work > 0; ++widening) {
      std::int64_t share = work / 4 + 1;
      work -= share;
      cleared = repair.clear(begin, end, share);
      work += share;
      const int width = end - begin;
      begin = std::max(0, begin - width);
      end = std::min(count, end + width);
    }
    if (!cleared) return false;
  }
  return true;
}

}  // namespace mb::planner
