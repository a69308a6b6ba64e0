// Every stride-th pixel of each channel, and its transpose (ops.h).
//   y[n,p,q,c] = x[n, start + p stride, start + q stride, c]
//   dx[n,h,w,c] = dy[n,p,q,c] where (h, w) is such a place, else 0
//
// Pixels are copied as they lie, all channels of one at a time. Limited by memory.
#include <cstring>

#include "elements.h"
#include "ops.h"
#include "parallel.h"

namespace convnet {

template <class T>
void nailbed_fprop(const NailbedShape& shape, const T* x, T* y, Stream) {
  const std::int64_t channels = shape.c, image = shape.h * (shape.w * channels);
  const std::int64_t row = shape.q * channels;
  const auto task = [&](std::int64_t first, std::int64_t rows) {
    for (std::int64_t i = first; i < first + rows; ++i) {
      const std::int64_t h = shape.start + i % shape.p * shape.stride;
      const T* pixel = x + i / shape.p * image + (h * shape.w + shape.start) * channels;
      for (int q = 0; q < shape.q; ++q) {
        std::memcpy(y + i * row + q * channels, pixel + q * (shape.stride * channels),
                    sizeof(T) * static_cast<std::size_t>(channels));
      }
    }
  };
  parallel_chunks(std::int64_t{shape.n} * shape.p, std::max<std::int64_t>(1, kChunk / row), task);
}

template <class T>
void nailbed_bprop(const NailbedShape& shape, const T* dy, T* dx, Stream) {
  const std::int64_t channels = shape.c, row = shape.w * channels;
  const auto task = [&](std::int64_t first, std::int64_t rows) {
    for (std::int64_t i = first; i < first + rows; ++i) {
      T* to = dx + i * row;
      std::fill(to, to + row, T{});
      const std::int64_t h = i % shape.h - shape.start;
      if (h < 0 || h % shape.stride != 0) continue;
      const T* pixel = dy + (i / shape.h * shape.p + h / shape.stride) * (shape.q * channels);
      for (int q = 0; q < shape.q; ++q) {
        std::memcpy(to + (shape.start + std::int64_t{q} * shape.stride) * channels,
                    pixel + q * channels, sizeof(T) * static_cast<std::size_t>(channels));
      }
    }
  };
  parallel_chunks(std::int64_t{shape.n} * shape.h, std::max<std::int64_t>(1, kChunk / row), task);
}

CONVNET_FOR_BOTH_TYPES(nailbed_fprop);
CONVNET_FOR_BOTH_TYPES(nailbed_bprop);

}  // namespace convnet
