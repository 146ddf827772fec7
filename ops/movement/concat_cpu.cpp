// Concat: for each outer index, a run of bytes of every input.
#include <cstring>
#include <vector>

#include "mb/elementwise.h"
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

struct Piece {
  const char* from;
  std::size_t bytes;   // of one run
  std::size_t offset;  // in the output's run
};

Launch bind_concat(const Call& call) {
  const Tensor& y = call.out();
  const auto axis = call.attrs.integer("axis");
  const auto order = memory_order(y);
  std::int64_t outer = 1;
  std::size_t inner = size_of(y.dtype);
  bool behind = false;  // axes further in than the concatenated one
  for (int i = 0; i < y.rank; ++i) {
    if (order[i] == axis) {
      behind = true;
    } else if (behind) {
      inner *= std::size_t(y.dims[order[i]]);
    } else {
      outer *= y.dims[order[i]];
    }
  }
  std::vector<Piece> pieces;
  std::size_t run = 0;
  for (const Tensor& x : call.inputs) {
    const std::size_t bytes = std::size_t(x.dims[axis]) * inner;
    pieces.push_back({static_cast<const char*>(x.pointer), bytes, run});
    run += bytes;
  }
  if (run == 0 || outer == 0) return [](Stream&) {};
  char* to = static_cast<char*>(y.pointer);
  if (outer == 1) {  // whole inputs one after the other: split the bytes themselves
    return [=](Stream&) {
      for (const Piece& p : pieces) {
        parallel_for(std::int64_t(p.bytes), 1 << 17, [&](std::int64_t begin, std::int64_t end) {
          std::memcpy(to + p.offset + begin, p.from + begin, std::size_t(end - begin));
        });
      }
    };
  }
  const std::int64_t grain = std::max<std::int64_t>(1, (1 << 16) / std::int64_t(run));
  return [=](Stream&) {
    parallel_for(outer, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t o = begin; o < end; ++o) {
        for (const Piece& p : pieces) {
          std::memcpy(to + std::size_t(o) * run + p.offset, p.from + std::size_t(o) * p.bytes,
                      p.bytes);
        }
      }
    });
  };
}

}  // namespace

MB_KERNEL("concat", Device::kCpu, bind_concat)

}  // namespace mb::MB_ISA
