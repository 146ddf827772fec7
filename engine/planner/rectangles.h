// Rectangles of time and memory: what static storage allocation places.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mb::planner {

// A buffer of `size` bytes that is live on [lower, upper); positions in time only have an order.
struct Rectangle {
  std::int64_t lower;
  std::int64_t upper;
  std::int64_t size;
};

// The most bytes that are live at one time: no placement can be lower.
std::int64_t max_live(std::span<const Rectangle> rectangles);

}  // namespace mb::planner
