#include "allocate.h"

#include <algorithm>
#include <numeric>

#include "branch_and_bound.h"
#include "greedy.h"
#include "repair.h"

namespace mb::planner {
namespace {

constexpr int kPromotions = 40;       // of one order
constexpr int kSearchedWhole = 2000;  // rectangles

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

// Places again and again; what came to lie above `enough` goes first the next time ("squeaky wheel
// optimisation", Joslin & Clements, JAIR 1999). The two-ended attempts gain most from it.
void promote(std::span<const Rectangle> rectangles, const Sections& sections, Attempt attempt,
             std::int64_t enough, std::int64_t& work, Allocation& best) {
  for (int round = 0; round < kPromotions && work > 0; ++round) {
    const std::vector<std::int64_t> offsets = place(rectangles, sections, attempt, work);
    keep_lower(rectangles, offsets, best);
    if (best.height <= enough) return;
    std::stable_partition(attempt.order.begin(), attempt.order.end(),
                          [&](int r) { return offsets[r] + rectangles[r].size > enough; });
  }
}

void try_greedily(std::span<const Rectangle> rectangles, std::int64_t enough, std::int64_t& work,
                  Allocation& best) {
  const Sections sections(rectangles);
  int lowest = 0;
  for (int number = 0; number < kAttempts && (number == 0 || work > 0); ++number) {
    const std::int64_t before = best.height;
    keep_lower(rectangles, place(rectangles, sections, attempt(number, rectangles), work), best);
    if (best.height <= enough) return;
    if (best.height < before) lowest = number;
  }
  for (const int number : {kAttempts - 2, kAttempts - 1, lowest}) {
    promote(rectangles, sections, attempt(number, rectangles), enough, work, best);
    if (best.height <= enough) return;
  }
}

// Looks for a placement below `target`: a new one of all rectangles when they are few, or by
// repairing the best one.
Outcome lower_to(std::span<const Rectangle> rectangles, std::int64_t target, std::int64_t& work,
                 Allocation& best) {
  Outcome outcome;
  std::vector<std::int64_t> offsets(rectangles.size(), -1);
  if (int(rectangles.size()) <= kSearchedWhole) {
    outcome = place_below(rectangles, target, offsets, work);
  } else {
    offsets = best.offsets;
    const bool repaired = repair(rectangles, Sections(rectangles), target, offsets, work);
    outcome = repaired ? Outcome::kSolved : Outcome::kGaveUp;
  }
  if (outcome == Outcome::kSolved) keep_lower(rectangles, std::move(offsets), best);
  return outcome;
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
    std::int64_t share = std::max<std::int64_t>(work / 2, 1);
    work -= share;
    const Outcome outcome = lower_to(rectangles, target, share, best);
    work += share;
    if (outcome != Outcome::kSolved) {
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
    try_greedily(solid, enough, work, found);
    if (found.height > enough) search(solid, bound, enough, work, found);
  }
  for (std::size_t k = 0; k < solid.size(); ++k) best.offsets[number[k]] = found.offsets[k];
  best.height = found.height;
  best.optimal = found.optimal || found.height <= bound;
  return best;
}

}  // namespace mb::planner
