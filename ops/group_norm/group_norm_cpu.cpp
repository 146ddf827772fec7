// Group norm: sums of each image's channels in blocks, merged into groups, then one map.
#include <cmath>

#include "mb/channels.h"
#include "mb/kernel.h"

namespace mb::MB_ISA {
namespace {

struct Images {
  std::int64_t count = 0;  // images
  std::int64_t size = 0;   // values of one image
  std::int64_t groups = 1;
  Channels view;  // of one image

  explicit Images(const Call& call) : groups(call.attrs.integer("groups")) {
    Tensor one = call.in(0);
    count = one.dim(0);
    one.dims[0] = 1;
    size = one.count();
    view = channels_of(one);
  }
  std::int64_t width() const { return view.channels / groups; }
  double values() const { return double(width() * view.count()); }  // of one group
};

// Behind the partial sums of one image at a time: vectors of channels.
std::size_t workspace_of(const Call& call) {
  const Images images(call);
  return partial_bytes(images.view) + std::size_t(images.view.channels) * 8 * sizeof(float);
}

// Merges channel moments (equal counts) into the group's mean and 1 / sqrt(variance + eps).
void merge_group(const float* mean, const float* m2, std::int64_t width, double count, float eps,
                 float* group_mean, float* inverse) {
  double centre = 0, squares = 0;
  for (std::int64_t i = 0; i < width; ++i) centre += mean[i];
  centre /= double(width);
  for (std::int64_t i = 0; i < width; ++i) {
    const double d = mean[i] - centre;
    squares += m2[i] + d * d * count;
  }
  *group_mean = float(centre);
  *inverse = float(1.0 / std::sqrt(squares / (count * double(width)) + double(eps)));
}

Launch bind_group_norm(const Call& call) {
  const Images images(call);
  const float* x = call.in(0).data<float>();
  const float* gamma = call.in(1).data<float>();
  const float* beta = call.in(2).data<float>();
  const float eps = float(call.attrs.real("eps"));
  float* y = call.out(0).data<float>();
  float* mean = call.out(1).data<float>();
  float* inverse = call.out(2).data<float>();
  float* partial = static_cast<float*>(call.workspace.pointer);
  float* vectors = partial + partial_bytes(images.view) / sizeof(float);
  return [=](Stream&) {
    const std::int64_t channels = images.view.channels, width = images.width();
    float *own_mean = vectors, *m2 = vectors + channels;
    float *scale = vectors + 2 * channels, *centre = vectors + 3 * channels;
    for (std::int64_t n = 0; n < images.count; ++n) {
      float* image_mean = mean + n * images.groups;
      float* image_inverse = inverse + n * images.groups;
      if (images.size == 0) {
        std::fill(image_mean, image_mean + images.groups, 0.0f);
        std::fill(image_inverse, image_inverse + images.groups, 0.0f);
        continue;
      }
      block_moments(images.view, x + n * images.size, partial);
      merge_moments(images.view, partial, own_mean, m2);
      for (std::int64_t g = 0; g < images.groups; ++g) {
        const std::int64_t c0 = g * width;
        merge_group(own_mean + c0, m2 + c0, width, double(images.view.count()), eps, image_mean + g,
                    image_inverse + g);
        for (std::int64_t c = c0; c < c0 + width; ++c) {
          scale[c] = gamma[c] * image_inverse[g];
          centre[c] = image_mean[g];
        }
      }
      map_channels<false, true>(images.view, y + n * images.size, nullptr, x + n * images.size,
                                {nullptr, scale, centre, beta});
    }
  };
}

// Coefficients of dx = a dy + b (x - m) + s from the image's sums of dy and dy (x - mean).
struct GradVectors {
  float *sum, *product, *a, *b, *m, *s;
};

void group_coefficients(const Images& images, const float* gamma, const float* mean,
                        const float* inverse, const GradVectors& v) {
  const std::int64_t width = images.width();
  for (std::int64_t g = 0; g < images.groups; ++g) {
    double level = 0, slope = 0;
    for (std::int64_t c = g * width; c < (g + 1) * width; ++c) {
      level += double(gamma[c]) * v.sum[c];
      slope += double(gamma[c]) * v.product[c];
    }
    const double r = inverse[g];
    for (std::int64_t c = g * width; c < (g + 1) * width; ++c) {
      v.a[c] = gamma[c] * inverse[g];
      v.b[c] = float(-slope / images.values() * r * r * r);
      v.m[c] = mean[g];
      v.s[c] = float(-level / images.values() * r);
    }
  }
}

Launch bind_group_norm_grad(const Call& call) {
  const Images images(call);
  const float* x = call.in(0).data<float>();
  const float* dy = call.in(1).data<float>();
  const float* gamma = call.in(2).data<float>();
  const float* mean = call.in(3).data<float>();
  const float* inverse = call.in(4).data<float>();
  float* dx = call.out(0).data<float>();
  float* dgamma = call.out(1).data<float>();
  float* dbeta = call.out(2).data<float>();
  float* partial = static_cast<float*>(call.workspace.pointer);
  float* vectors = partial + partial_bytes(images.view) / sizeof(float);
  return [=](Stream&) {
    const std::int64_t channels = images.view.channels;
    const auto vector = [&](std::int64_t index) { return vectors + index * channels; };
    const GradVectors v{vector(0), vector(1), vector(2), vector(3), vector(4), vector(5)};
    std::fill(dgamma, dgamma + channels, 0.0f);
    std::fill(dbeta, dbeta + channels, 0.0f);
    if (images.size == 0) return;
    for (std::int64_t n = 0; n < images.count; ++n) {
      const float* image_mean = mean + n * images.groups;
      const float* image_inverse = inverse + n * images.groups;
      const std::int64_t at = n * images.size;
      for (std::int64_t c = 0; c < channels; ++c) v.m[c] = image_mean[c / images.width()];
      block_sums(images.view, x + at, dy + at, v.m, partial);
      merge_sums(images.view, partial, v.sum, v.product);
      for (std::int64_t c = 0; c < channels; ++c) {
        dgamma[c] += v.product[c] * image_inverse[c / images.width()];
        dbeta[c] += v.sum[c];
      }
      group_coefficients(images, gamma, image_mean, image_inverse, v);
      map_channels<true, true>(images.view, dx + at, dy + at, x + at, {v.a, v.b, v.m, v.s});
    }
  };
}

}  // namespace

MB_KERNEL("group_norm", Device::kCpu, bind_group_norm, workspace_of)
MB_KERNEL("group_norm_grad", Device::kCpu, bind_group_norm_grad, workspace_of)

}  // namespace mb::MB_ISA
