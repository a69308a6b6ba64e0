// A Gaussian over each channel, with zeros outside the image (ops.h).
//   y[n,h,w,c] = sum_s g_s sum_r g_r x[n, h - size/2 + r, w - size/2 + s, c]
//
// An output row is made in two steps: the rows that it sees, added up down the image into a row of
// float32 with a margin of zeros, and the filter across over that. Both run over contiguous memory,
// whatever the number of channels. Limited by memory: the rows come from the caches.
#include <vector>

#include "elements.h"
#include "ops.h"
#include "parallel.h"

namespace convnet {
namespace {

// One row of the output. `sums` is [size/2 + W + size/2, C], and zero at both ends.
template <class T, int kSize>
CONVNET_INLINE void blur_row(const BlurShape& shape, int h, const T* image, float* sums, T* y) {
  const std::int64_t row = std::int64_t{shape.w} * shape.c;
  float* down = sums + kSize / 2 * std::int64_t{shape.c};
  std::fill(down, down + row, 0.0f);
  for (int r = 0; r < kSize; ++r) {
    const int source = h - kSize / 2 + r;
    if (source < 0 || source >= shape.h) continue;
    const T* x = image + source * row;
    const float weight = shape.weights[r];
    CONVNET_SIMD
    for (std::int64_t i = 0; i < row; ++i) down[i] += weight * read(x[i]);
  }
  const std::int64_t pixel = shape.c;
  CONVNET_SIMD
  for (std::int64_t i = 0; i < row; ++i) {
    float sum = 0.0f;
    for (int s = 0; s < kSize; ++s) sum += shape.weights[s] * sums[i + s * pixel];
    write(y + i, sum);
  }
}

template <class T, int kSize>
void run(const BlurShape& shape, const T* x, T* y) {
  const std::int64_t row = std::int64_t{shape.w} * shape.c, image = shape.h * row;
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kChunk / (row * kSize));
  const std::int64_t margins = 2 * (kSize / 2) * std::int64_t{shape.c};
  const auto task = [&](std::int64_t first, std::int64_t rows) {
    std::vector<float> sums(static_cast<std::size_t>(row + margins), 0.0f);
    for (std::int64_t i = first; i < first + rows; ++i) {
      vectorized<blur_row<T, kSize>>(shape, static_cast<int>(i % shape.h), x + i / shape.h * image,
                                     sums.data(), y + i * row);
    }
  };
  parallel_chunks(std::int64_t{shape.n} * shape.h, rows_per_task, task);
}

}  // namespace

template <class T>
void blur(const BlurShape& shape, const T* x, T* y, Stream) {
  if (shape.size == 3) {
    run<T, 3>(shape, x, y);
  } else if (shape.size == 5) {
    run<T, 5>(shape, x, y);
  } else if (shape.size == 7) {
    run<T, 7>(shape, x, y);
  } else {
    run<T, 9>(shape, x, y);
  }
}

CONVNET_FOR_BOTH_TYPES(blur);

}  // namespace convnet
