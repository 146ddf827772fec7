#include "rectangles.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <numeric>
#include <set>
#include <tuple>

namespace mb::planner {

Sections::Sections(std::span<const Rectangle> rectangles)
    : first(rectangles.size()), last(rectangles.size()) {
  for (const Rectangle& r : rectangles) {
    times.push_back(r.lower);
    times.push_back(r.upper);
  }
  std::sort(times.begin(), times.end());
  times.erase(std::unique(times.begin(), times.end()), times.end());
  auto at = [&](std::int64_t time) {
    return int(std::lower_bound(times.begin(), times.end(), time) - times.begin());
  };
  for (std::size_t r = 0; r < rectangles.size(); ++r) {
    first[r] = at(rectangles[r].lower);
    last[r] = std::max(first[r], at(rectangles[r].upper));
  }
}

std::vector<std::int64_t> live_bytes(std::span<const Rectangle> rectangles,
                                     const Sections& sections) {
  std::vector<std::int64_t> live(sections.times.size() + 1);
  for (std::size_t r = 0; r < rectangles.size(); ++r) {
    live[sections.first[r]] += rectangles[r].size;
    live[sections.last[r]] -= rectangles[r].size;
  }
  std::partial_sum(live.begin(), live.end(), live.begin());
  return live;
}

std::int64_t max_live(std::span<const Rectangle> rectangles) {
  const std::vector<std::int64_t> live = live_bytes(rectangles, Sections(rectangles));
  return *std::max_element(live.begin(), live.end());
}

std::vector<std::int64_t> live_beside(std::span<const Rectangle> rectangles) {
  const Sections sections(rectangles);
  const std::vector<std::int64_t> live = live_bytes(rectangles, sections);
  // levels[k][s]: the most of sections [s, s + 2^k), so that two of them cover any lifetime.
  std::vector<std::vector<std::int64_t>> levels{live};
  for (std::size_t width = 1; 2 * width <= live.size(); width *= 2) {
    const std::vector<std::int64_t>& below = levels.back();
    std::vector<std::int64_t> level(below.size() - width);
    for (std::size_t s = 0; s < level.size(); ++s) level[s] = std::max(below[s], below[s + width]);
    levels.push_back(std::move(level));
  }
  std::vector<std::int64_t> most(rectangles.size());
  for (std::size_t r = 0; r < rectangles.size(); ++r) {
    const unsigned length = unsigned(sections.last[r] - sections.first[r]);
    if (length == 0) continue;
    const int level = std::bit_width(length) - 1;
    most[r] =
        std::max(levels[level][sections.first[r]], levels[level][sections.last[r] - (1 << level)]);
  }
  return most;
}

std::pair<int, int> find_overlap(std::span<const Rectangle> rectangles,
                                 std::span<const std::int64_t> offsets) {
  struct Event {
    std::int64_t time;
    bool begins;
    int index;
  };
  std::vector<Event> events;
  for (int r = 0; r < int(rectangles.size()); ++r) {
    if (rectangles[r].size == 0 || rectangles[r].lower >= rectangles[r].upper) continue;
    events.push_back({rectangles[r].lower, true, r});
    events.push_back({rectangles[r].upper, false, r});
  }
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return std::tuple(a.time, a.begins, a.index) < std::tuple(b.time, b.begins, b.index);
  });
  std::set<std::pair<std::int64_t, int>> live;  // offset, index
  for (const Event& event : events) {
    const std::pair<std::int64_t, int> entry(offsets[event.index], event.index);
    if (!event.begins) {
      live.erase(entry);
      continue;
    }
    const auto at = live.insert(entry).first;
    if (at != live.begin()) {
      const auto [offset, below] = *std::prev(at);
      if (offset + rectangles[below].size > entry.first) return {below, event.index};
    }
    if (const auto above = std::next(at); above != live.end()) {
      if (entry.first + rectangles[event.index].size > above->first) {
        return {event.index, above->second};
      }
    }
  }
  return {-1, -1};
}

}  // namespace mb::planner
