// Crop, mirror, colour noise and mean subtraction, from bytes to floats (paper, section 4.1).
//   y[n,p,q,c] = scale * (x[n, p + offset_h, q' + offset_w, c] + noise[n,c] - mean[same place])
//   q' = mirror[n] ? Q - 1 - q : q;  a place outside x gives 0
//
// A row of the crop is a run of contiguous bytes, so the equation is applied to the run as a whole,
// with the noise repeated along it, and vectorises for 3 channels too. A mirrored row is made the
// right way round in scratch memory and copied pixel by pixel.
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

}  // namespace

template <class T>
void augment(const AugmentShape& shape, const std::uint8_t* x, const std::int32_t* offsets,
             const std::uint8_t* mirror, const float* noise, const float* mean, float scale, T* y,
             Stream) {
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
