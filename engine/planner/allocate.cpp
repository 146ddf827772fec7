#include "allocate.h"

#include <algorithm>
#include <numeric>

#include "branch_and_bound.h"
#include "greedy.h"

namespace mb::planner {
namespace {

std::int64_t height_of(std::span<const Rectangle> rectangles,
                       std::span<const std::int64_t> offsets) {
  std::int64_t height = 0;
  for (std::size_t r = 0; r < rectangles.size(); ++r) {
    height = std::max(height, offsets[r] + rectangles[r].size);
  }
  return height;
}

void keep_lower(std::span<const Rectangle> rectangles, std::vector<std::int64_t> offsets,
                Allocation& best) {
  const std::int64_t height = height_of(rectangles, offsets);
  if (!best.offsets.empty() && height >= best.height) return;
  best.offsets = std::move(offsets);
  best.height = height;
}

void try_greedily(std::span<const Rectangle> rectangles, std::int64_t enough, Allocation& best) {
  const Sections sections(rectangles);
  for (int number = 0; number < kAttempts; ++number) {
    keep_lower(rectangles, place(rectangles, sections, attempt(number, rectangles)), best);
    if (best.height <= enough) return;
  }
}

// Halves the heights between the least one not excluded and the best one found. Heights are sums of
// sizes, so only multiples of the sizes' common divisor are possible.
void search(std::span<const Rectangle> rectangles, std::int64_t bound, std::int64_t enough,
            std::int64_t work, Allocation& best) {
  std::int64_t step = 0;
  for (const Rectangle& r : rectangles) step = std::gcd(step, r.size);
  std::int64_t low = bound, target = enough / step * step;
  bool proven = true;
  while (work > 0 && low < best.height && best.height > enough) {
    std::vector<std::int64_t> offsets(rectangles.size(), -1);
    std::int64_t share = std::max<std::int64_t>(work / 2, 1);
    work -= share;
    const Outcome outcome = place_below(rectangles, target, offsets, share);
    work += share;
    if (outcome == Outcome::kSolved) {
      keep_lower(rectangles, std::move(offsets), best);
    } else {
      proven &= outcome == Outcome::kImpossible;
      low = target + step;
    }
    target = low + (best.height - low) / (2 * step) * step;
    if (target >= best.height) target = low;
  }
  best.optimal = proven && low >= best.height;
}

}  // namespace

Allocation allocate(std::span<const Rectangle> rectangles, std::int64_t wanted, std::int64_t work) {
  Allocation best;
  best.offsets.assign(rectangles.size(), 0);
  std::vector<Rectangle> solid;  // those that take room
  std::vector<int> number;
  for (std::size_t r = 0; r < rectangles.size(); ++r) {
    if (rectangles[r].size == 0 || rectangles[r].lower >= rectangles[r].upper) continue;
    solid.push_back(rectangles[r]);
    number.push_back(int(r));
  }
  Allocation found;
  const std::int64_t bound = max_live(solid), enough = std::max(wanted, bound);
  if (!solid.empty()) {
    try_greedily(solid, enough, found);
    if (found.height > enough) search(solid, bound, enough, work, found);
  }
  for (std::size_t k = 0; k < solid.size(); ++k) best.offsets[number[k]] = found.offsets[k];
  best.height = found.height;
  best.optimal = found.optimal || found.height <= bound;
  return best;
}

}  // namespace mb::planner
