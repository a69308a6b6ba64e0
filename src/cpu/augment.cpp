// Crop, mirror, turn, colour noise and mean subtraction, from bytes to floats (paper, section 4.1).
//   y[n,p,q,c] = scale * v[p + offset_h, q' + offset_w],   q' = mirror[n] ? Q - 1 - q : q
//   v[h, w] = x[n,h,w,c] + noise[n,c] - mean[h,w,c], and 0 at a place outside x; with affine the
//   place is turned about the crop's centre (ops.h), and v is interpolated between four pixels
//
// Without affine, a row of the crop is a run of contiguous bytes, so the equation is applied to the run as a whole,
// with the noise repeated along it, and vectorises for 3 channels too. A mirrored row is made the
// right way round in scratch memory and copied pixel by pixel.
#include <cmath>
#include <cstring>
#include <vector>

#include "elements.h"
#include "ops.h"
#include "parallel.h"

namespace convnet {
namespace {

// The part [begin, end) of a crop of `size` at `offset` that lies on an image of `extent`.
struct Inside {
  std::int64_t begin, end;
};

Inside inside(std::int64_t offset, std::int64_t size, std::int64_t extent) {
  const std::int64_t begin = std::clamp<std::int64_t>(-offset, 0, size);
  return {begin, std::clamp<std::int64_t>(extent - offset, begin, size)};
}

template <class T>
CONVNET_INLINE void transform(std::int64_t count, float scale, const std::uint8_t* __restrict x,
                              const float* __restrict noise, const float* __restrict mean,
                              T* __restrict y) {
  for (std::int64_t i = 0; i < count; ++i) {
    write(y + i, scale * (static_cast<float>(x[i]) + noise[i] - mean[i]));
  }
}

// `to` = the pixels of `from`, of `channels` numbers each, in the opposite order. May read one number
// past the end of `from`.
template <class T>
void reverse_pixels(std::int64_t pixels, std::int64_t channels, const T* from, T* to) {
  std::int64_t i = 0;
  if (channels == 3) {  // by four numbers, one instruction; the next copy puts the fourth right
    for (; i + 1 < pixels; ++i) {
      std::memcpy(to + 3 * i, from + 3 * (pixels - 1 - i), 4 * sizeof(T));
    }
  }
  for (; i < pixels; ++i) {
    std::memcpy(to + i * channels, from + (pixels - 1 - i) * channels,
                static_cast<std::size_t>(channels) * sizeof(T));
  }
}

// `pattern`, of `channels` floats, or zeros if null, over and over.
void repeat(const float* pattern, std::int64_t channels, std::int64_t pixels, float* to) {
  for (std::int64_t i = 0; i < pixels * channels; i += channels) {
    for (std::int64_t c = 0; c < channels; ++c) to[i + c] = pattern == nullptr ? 0.0f : pattern[c];
  }
}

template <class T>
struct Scratch {
  explicit Scratch(std::int64_t row)
      : noise(static_cast<std::size_t>(row)), mean(noise.size()), line(noise.size() + 1) {}
  std::vector<float> noise, mean;  // one row of the crop each
  std::vector<T> line;             // for reverse_pixels()
};

// One image as it is sampled between pixels.
struct Image {
  const AugmentShape& shape;
  const std::uint8_t* x;
  const float* noise;  // or null
  const float* mean;
  bool mean_image;

  // Adds share * v[h, w] to `sums`, one for each channel.
  void add(std::int64_t h, std::int64_t w, float share, float* sums) const {
    if (h < 0 || h >= shape.h || w < 0 || w >= shape.w) return;
    const std::int64_t place = (h * shape.w + w) * shape.c;
    const float* means = mean + (mean_image ? place : 0);
    for (int c = 0; c < shape.c; ++c) {
      const float shift = noise == nullptr ? 0.0f : noise[c];
      sums[c] += share * (static_cast<float>(x[place + c]) + shift - means[c]);
    }
  }
};

// A row of a crop whose places are turned by the matrix a. `sums` has room for all channels.
template <class T>
void turned_row(const Image& image, const float* a, const std::int32_t* offset, bool mirrored,
                std::int64_t p, float scale, float* sums, T* y) {
  const AugmentShape& shape = image.shape;
  const float middle_p = 0.5f * static_cast<float>(shape.p - 1);
  const float middle_q = 0.5f * static_cast<float>(shape.q - 1);
  const float below = static_cast<float>(p) - middle_p;
  const float row_h = static_cast<float>(offset[0]) + middle_p + a[0] * below;
  const float row_w = static_cast<float>(offset[1]) + middle_q + a[2] * below;
  for (std::int64_t q = 0; q < shape.q; ++q, y += shape.c) {
    const float right = static_cast<float>(mirrored ? shape.q - 1 - q : q) - middle_q;
    const float h = row_h + a[1] * right, w = row_w + a[3] * right;
    std::fill(sums, sums + shape.c, std::isnan(h + w) ? h + w : 0.0f);
    if (h > -1.0f && h < static_cast<float>(shape.h) && w > -1.0f &&
        w < static_cast<float>(shape.w)) {
      const float top = std::floor(h), left = std::floor(w), down = h - top, across = w - left;
      const auto first_h = static_cast<std::int64_t>(top);
      const auto first_w = static_cast<std::int64_t>(left);
      image.add(first_h, first_w, (1.0f - down) * (1.0f - across), sums);
      image.add(first_h, first_w + 1, (1.0f - down) * across, sums);
      image.add(first_h + 1, first_w, down * (1.0f - across), sums);
      image.add(first_h + 1, first_w + 1, down * across, sums);
    }
    for (int c = 0; c < shape.c; ++c) write(y + c, scale * sums[c]);
  }
}

template <class T>
void turned(const AugmentShape& shape, const std::uint8_t* x, const std::int32_t* offsets,
            const std::uint8_t* mirror, const float* affine, const float* noise, const float* mean,
            float scale, T* y) {
  const std::int64_t channels = shape.c, row = shape.q * channels;
  const bool mean_image = shape.mean_h == shape.h && shape.mean_w == shape.w;
  parallel_chunks(std::int64_t{shape.n} * shape.p, std::max<std::int64_t>(1, kChunk / (4 * row)),
                  [&](std::int64_t first, std::int64_t rows) {
                    std::vector<float> sums(static_cast<std::size_t>(channels));
                    for (std::int64_t i = first; i < first + rows; ++i) {
                      const std::int64_t n = i / shape.p;
                      const Image image{shape, x + n * shape.h * shape.w * channels,
                                        noise == nullptr ? nullptr : noise + n * channels, mean,
                                        mean_image};
                      turned_row(image, affine + 4 * n, offsets + 2 * n, mirror[n] != 0,
                                 i % shape.p, scale, sums.data(), y + i * row);
                    }
                  });
}

}  // namespace

template <class T>
void augment(const AugmentShape& shape, const std::uint8_t* x, const std::int32_t* offsets,
             const std::uint8_t* mirror, const float* affine, const float* noise, const float* mean,
             float scale, T* y, Stream) {
  if (affine != nullptr) {
    return turned(shape, x, offsets, mirror, affine, noise, mean, scale, y);
  }
  const std::int64_t channels = shape.c, row = shape.q * channels;
  const bool mean_image = shape.mean_h == shape.h && shape.mean_w == shape.w;
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kChunk / row);
  const std::int64_t tasks_per_image = ceil_div(shape.p, rows_per_task);
  parallel_for(shape.n * tasks_per_image, [&](std::int64_t task) {
    const std::int64_t n = task / tasks_per_image;
    const std::int64_t first = task % tasks_per_image * rows_per_task;
    const std::int64_t last = std::min<std::int64_t>(shape.p, first + rows_per_task);
    const std::int64_t offset_h = offsets[2 * n], offset_w = offsets[2 * n + 1];
    const Inside rows = inside(offset_h, shape.p, shape.h);
    const Inside cols = inside(offset_w, shape.q, shape.w);
    Scratch<T> scratch(row);
    repeat(noise == nullptr ? nullptr : noise + n * channels, channels, shape.q,
           scratch.noise.data());
    if (!mean_image) repeat(mean, channels, shape.q, scratch.mean.data());
    for (std::int64_t p = first; p < last; ++p) {
      T* result = y + (n * shape.p + p) * row;
      if (p < rows.begin || p >= rows.end || cols.begin == cols.end) {
        std::fill(result, result + row, T{});
        continue;
      }
      T* line = mirror[n] != 0 ? scratch.line.data() : result;
      const std::int64_t place = (p + offset_h) * shape.w + cols.begin + offset_w;
      std::fill(line, line + cols.begin * channels, T{});
      vectorized<transform<T>>((cols.end - cols.begin) * channels, scale,
                               x + (n * shape.h * shape.w + place) * channels, scratch.noise.data(),
                               mean_image ? mean + place * channels : scratch.mean.data(),
                               line + cols.begin * channels);
      std::fill(line + cols.end * channels, line + row, T{});
      if (line != result) reverse_pixels(shape.q, channels, line, result);
    }
  });
}

CONVNET_FOR_BOTH_TYPES(augment);

}  // namespace convnet
