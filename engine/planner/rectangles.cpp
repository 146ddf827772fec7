#include "rectangles.h"

#include <algorithm>

namespace mb::planner {

std::int64_t max_live(std::span<const Rectangle> rectangles) {
  struct Change {
    std::int64_t time, bytes;
  };
  std::vector<Change> changes;
  changes.reserve(2 * rectangles.size());
  for (const Rectangle& r : rectangles) {
    if (r.lower >= r.upper) continue;
    changes.push_back({r.lower, r.size});
    changes.push_back({r.upper, -r.size});
  }
  // At one time ends come before beginnings: an interval does not contain its upper end.
  std::sort(changes.begin(), changes.end(), [](const Change& a, const Change& b) {
    return a.time != b.time ? a.time < b.time : a.bytes < b.bytes;
  });
  std::int64_t live = 0, most = 0;
  for (const Change& change : changes) {
    live += change.bytes;
    most = std::max(most, live);
  }
  return most;
}

}  // namespace mb::planner
