// Mask targets: bilinear samples of a cropped mask, averaged over each bin of a box.
#include <cmath>

#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

// A mask in its rectangle; 0 elsewhere.
struct Mask {
  const std::uint8_t* pixels;
  std::int64_t top, left, height, width;

  const std::uint8_t* row(std::int64_t y) const {
    return y >= top && y < top + height ? pixels + (y - top) * width : nullptr;
  }
};

// Samples along one axis of a box, as torchvision's roi_align places them (sampling_ratio -1).
struct Samples {
  double start, step;  // of a sample
  std::int64_t grid;   // samples a bin
  double pixels;

  Samples(double low, double high, std::int64_t bins, std::int64_t size) : start(low) {
    const double length = std::max(high - low, 1.0);
    const bool finite = length < 1e9;  // a box without an end, or that is not a number, has none
    grid = finite ? std::int64_t(std::ceil(length / double(bins))) : 0;
    step = finite ? length / double(bins) / double(grid) : 0;
    pixels = double(size);
  }
  // Where sample k lies, within the image; negative where it does not count.
  double at(std::int64_t k) const {
    const double position = start + (double(k) + 0.5) * step;
    if (!(position >= -1 && position <= pixels)) return -1;
    return std::min(std::max(position, 0.0), pixels - 1);
  }
};

// Adds weight * (one row of the mask) to each bin of `y`.
void add_row(float* y, std::int64_t bins, const Mask& mask, std::int64_t row, double weight,
             const Samples& columns) {
  const std::uint8_t* pixels = mask.row(row);
  if (pixels == nullptr || weight == 0) return;
  const auto pixel = [&](std::int64_t x) {
    x -= mask.left;
    return x >= 0 && x < mask.width ? double(pixels[x]) : 0.0;
  };
  for (std::int64_t q = 0; q < bins; ++q) {
    double total = 0;
    for (std::int64_t k = 0; k < columns.grid; ++k) {
      const double x = columns.at(q * columns.grid + k);
      if (x < 0) continue;
      const auto left = std::int64_t(x);
      const double part = x - double(left);
      total += (1 - part) * pixel(left) + (part > 0 ? part * pixel(left + 1) : 0);
    }
    y[q] += float(weight * total);
  }
}

void targets_of(float* y, std::int64_t bins, const Mask& mask, const float* box,
                const std::int32_t* image) {
  std::fill(y, y + bins * bins, 0.f);
  const Samples rows(box[1], box[3], bins, image[0]), columns(box[0], box[2], bins, image[1]);
  if (rows.grid == 0 || columns.grid == 0) return;
  const double share = 1.0 / double(rows.grid * columns.grid);
  for (std::int64_t p = 0; p < bins; ++p) {
    for (std::int64_t k = 0; k < rows.grid; ++k) {
      const double at = rows.at(p * rows.grid + k);
      if (at < 0) continue;
      const auto upper = std::int64_t(at);
      const double part = at - double(upper);
      add_row(y + p * bins, bins, mask, upper, (1 - part) * share, columns);
      add_row(y + p * bins, bins, mask, upper + 1, part * share, columns);
    }
  }
}

Launch bind_mask_targets(const Call& call) {
  const std::int64_t images = call.in(0).dim(0), capacity = call.in(0).dim(1);
  const std::int64_t most = call.in(1).dim(1), rows = call.in(3).dim(1);
  const std::int64_t bins = call.attrs.integer("size");
  const auto* masks = call.in(0).data<std::uint8_t>();
  const auto* places = call.in(1).data<std::int32_t>();
  const auto* sizes = call.in(2).data<std::int32_t>();
  const auto* rois = call.in(3).data<float>();
  const auto* objects = call.in(4).data<std::int32_t>();
  const auto* count = call.in(5).data<std::int32_t>();
  auto* y = call.out().data<float>();

  const auto mask_of = [=](std::int64_t n, std::int64_t r) {
    const std::int64_t object = objects[n * rows + r];
    if (object < 0 || object >= most) {
      fail("object ", object, " of box ", r, " is outside of [0, ", most, ")");
    }
    const std::int32_t* place = places + (n * most + object) * 5;
    const std::int64_t offset = place[0], height = place[3], width = place[4];
    if (offset < 0 || height < 0 || width < 0 || offset + height * width > capacity) {
      fail("the mask of object ", object, ", ", height, "x", width, " pixels at ", offset,
           ", is outside of [0, ", capacity, ")");
    }
    return Mask{masks + n * capacity + offset, place[1], place[2], height, width};
  };
  const auto valid = [=](std::int64_t n) { return std::clamp<std::int64_t>(count[n], 0, rows); };
  return [=](Stream&) {
    for (std::int64_t n = 0; n < images; ++n) {  // refuse before threads start
      for (std::int64_t r = 0; r < valid(n); ++r) mask_of(n, r);
    }
    parallel_each(images * rows, [&](std::int64_t i) {
      const std::int64_t n = i / rows, r = i % rows;
      float* to = y + i * bins * bins;
      if (r < valid(n)) {
        targets_of(to, bins, mask_of(n, r), rois + i * 4, sizes + 2 * n);
      } else {
        std::fill(to, to + bins * bins, 0.f);
      }
    });
  };
}

}  // namespace

MB_KERNEL("mask_targets", Device::kCpu, bind_mask_targets)

}  // namespace mb::MB_ISA
