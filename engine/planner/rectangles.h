// Rectangles of time and memory: what static storage allocation places.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace mb::planner {

// A buffer of `size` bytes that is live on [lower, upper); positions in time only have an order.
struct Rectangle {
  std::int64_t lower;
  std::int64_t upper;
  std::int64_t size;
};

// Between two neighbouring ends of lifetimes, a section of time, the same rectangles are live.
struct Sections {
  explicit Sections(std::span<const Rectangle> rectangles);

  std::vector<std::int64_t> times;  // section s is [times[s], times[s + 1])
  std::vector<int> first, last;     // rectangle r lives in the sections [first[r], last[r])
};

// The live bytes of each section.
std::vector<std::int64_t> live_bytes(std::span<const Rectangle> rectangles,
                                     const Sections& sections);

// The most bytes that are live at one time: no placement can be lower.
std::int64_t max_live(std::span<const Rectangle> rectangles);

// For each rectangle the most bytes that are live at one time of its life, its own among them.
std::vector<std::int64_t> live_beside(std::span<const Rectangle> rectangles);

// Two rectangles that share a byte at one time; {-1, -1}: none do. A sweep over time that keeps
// what is live in the order of offsets, where overlapping ones are neighbours.
std::pair<int, int> find_overlap(std::span<const Rectangle> rectangles,
                                 std::span<const std::int64_t> offsets);

}  // namespace mb::planner
