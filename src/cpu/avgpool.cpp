// Average pooling and its backward pass, over windows clipped to the image (ops.h).
//   y[n,p,q,c] = 1 / |window(p,q)| * sum over the window of x[n,h,w,c]
//   dx[n,h,w,c] = sum over the windows (p, q) that hold (h, w) of dy[n,p,q,c] / |window(p,q)|
//
// Vectorised over channels; both passes gather, as in maxpool.cpp. Limited by memory.
#include <vector>

#include "elements.h"
#include "ops.h"
#include "parallel.h"
#include "pool.h"

namespace convnet {
namespace {

// One output pixel: its window is rows x cols of `image`.
template <class T>
struct Average {
  const PoolShape& shape;
  Span rows, cols;
  const T* image;
  T* y;

  template <int kBlock>
  CONVNET_INLINE void run(int channel) const {
    float sum[kBlock] = {};
    for (int h = rows.begin; h < rows.end; ++h) {
      for (int w = cols.begin; w < cols.end; ++w) {
        const T* x = image + (std::int64_t{h} * shape.w + w) * shape.c + channel;
        CONVNET_SIMD_16
        for (int c = 0; c < kBlock; ++c) sum[c] += read(x[c]);
      }
    }
    const auto count = static_cast<float>((rows.end - rows.begin) * (cols.end - cols.begin));
    CONVNET_SIMD_16
    for (int c = 0; c < kBlock; ++c) write(y + channel + c, sum[c] / count);
  }
};

// One row of outputs.
template <class T>
CONVNET_INLINE void avgpool_row(const PoolShape& shape, int p, const T* image, T* y) {
  const Span rows = window_span(p, shape.stride_h, shape.pad_h, shape.size_h, shape.h);
  for (int q = 0; q < shape.q; ++q) {
    const Span cols = window_span(q, shape.stride_w, shape.pad_w, shape.size_w, shape.w);
    for_channels(shape.c, Average<T>{shape, rows, cols, image, y + std::int64_t{q} * shape.c});
  }
}

// dx[c] += share * dy[c]
template <class T>
CONVNET_INLINE void add_share(int channels, float share, const T* dy, float* dx) {
  CONVNET_SIMD
  for (int c = 0; c < channels; ++c) dx[c] += share * read(dy[c]);
}

// One row of the image. `sum` has room for the channels of a pixel.
template <class T>
CONVNET_INLINE void avgpool_bprop_row(const PoolShape& shape, int h, const T* dy, float* sum,
                                      T* dx) {
  const int channels = shape.c;
  const Span ps = covering_span(h, shape.stride_h, shape.pad_h, shape.size_h, shape.p);
  for (int w = 0; w < shape.w; ++w) {
    const Span qs = covering_span(w, shape.stride_w, shape.pad_w, shape.size_w, shape.q);
    std::fill(sum, sum + channels, 0.0f);
    for (int p = ps.begin; p < ps.end; ++p) {
      const Span rows = window_span(p, shape.stride_h, shape.pad_h, shape.size_h, shape.h);
      for (int q = qs.begin; q < qs.end; ++q) {
        const Span cols = window_span(q, shape.stride_w, shape.pad_w, shape.size_w, shape.w);
        const auto count = static_cast<float>((rows.end - rows.begin) * (cols.end - cols.begin));
        const T* grad = dy + (std::int64_t{p} * shape.q + q) * channels;
        add_share(channels, 1.0f / count, grad, sum);
      }
    }
    T* out = dx + std::int64_t{w} * channels;
    CONVNET_SIMD
    for (int c = 0; c < channels; ++c) write(out + c, sum[c]);
  }
}

}  // namespace

template <class T>
void avgpool_fprop(const PoolShape& shape, const T* x, T* y, Stream) {
  const std::int64_t image = std::int64_t{shape.h} * shape.w * shape.c;
  const std::int64_t row = std::int64_t{shape.q} * shape.c;
  const std::int64_t work = row * shape.size_h * shape.size_w;
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kChunk / work);
  const auto task = [&](std::int64_t first, std::int64_t rows) {
    for (std::int64_t i = first; i < first + rows; ++i) {
      vectorized<avgpool_row<T>>(shape, static_cast<int>(i % shape.p), x + i / shape.p * image,
                                 y + i * row);
    }
  };
  parallel_chunks(std::int64_t{shape.n} * shape.p, rows_per_task, task);
}

template <class T>
void avgpool_bprop(const PoolShape& shape, const T* dy, T* dx, Stream) {
  const std::int64_t outputs = std::int64_t{shape.p} * shape.q * shape.c;
  const std::int64_t row = std::int64_t{shape.w} * shape.c;
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kChunk / row);
  const auto task = [&](std::int64_t first, std::int64_t rows) {
    std::vector<float> sum(static_cast<std::size_t>(shape.c));
    for (std::int64_t i = first; i < first + rows; ++i) {
      vectorized<avgpool_bprop_row<T>>(shape, static_cast<int>(i % shape.h),
                                       dy + i / shape.h * outputs, sum.data(), dx + i * row);
    }
  };
  parallel_chunks(std::int64_t{shape.n} * shape.h, rows_per_task, task);
}

CONVNET_FOR_BOTH_TYPES(avgpool_fprop);
CONVNET_FOR_BOTH_TYPES(avgpool_bprop);

}  // namespace convnet
