// Max-pooling and its backward pass, over windows clipped to the image (ops.h).
//   y[n,p,q,c] = max over r, s of x[n, p*stride_h - pad_h + r, q*stride_w - pad_w + s, c]
//   dx[n,h,w,c] = sum of dy[n,p,q,c] over the windows whose argmax is (h, w)
//
// Vectorised over channels, in vector_kernels.h where the channels fill a vector; what is here
// serves the rest. Forward, each output pixel runs over its window and keeps the best value and its
// index. Backward gathers: each input pixel adds up the windows that hold it, in row-major order,
// so rows of the image are independent and nothing is written twice. Limited by memory at the
// usual sizes.
#include "maxpool.h"

#include <vector>

#include "elementary.h"
#include "parallel.h"
#include "pool.h"

namespace convnet {
namespace {

// One output pixel: its window is rows x cols of the image.
template <class T>
struct Winner {
  const PoolShape& shape;
  Span rows, cols;
  const T* const* row_starts;  // of rows.begin and those after it
  T* y;
  std::uint8_t* argmax;

  template <int kBlock>
  CONVNET_INLINE void run(int channel) const {
    float best[kBlock];
    std::int32_t index[kBlock];  // as wide as the floats it is blended beside
    for (int c = 0; c < kBlock; ++c) {
      best[c] = read(pixel(rows.begin, cols.begin)[channel + c]);
      index[c] = code(rows.begin, cols.begin);
    }
    for (int h = rows.begin; h < rows.end; ++h) {
      for (int w = cols.begin; w < cols.end; ++w) {
        const T* values = pixel(h, w) + channel;
        const std::int32_t here = code(h, w);
        CONVNET_SIMD_16
        for (int c = 0; c < kBlock; ++c) {
          // Greater, or the first NaN.
          const float value = read(values[c]);
          const bool wins = !(value <= best[c]) & (best[c] == best[c]);
          best[c] = wins ? value : best[c];
          index[c] = wins ? here : index[c];
        }
      }
    }
    CONVNET_SIMD_16
    for (int c = 0; c < kBlock; ++c) write(y + channel + c, best[c]);
    for (int c = 0; c < kBlock; ++c) argmax[channel + c] = static_cast<std::uint8_t>(index[c]);
  }

  CONVNET_INLINE const T* pixel(int h, int w) const {
    return row_starts[h - rows.begin] + std::int64_t{w} * shape.c;
  }
  CONVNET_INLINE std::int32_t code(int h, int w) const {
    return (h - rows.start) * shape.size_w + w - cols.start;
  }
};

template <class T>
CONVNET_INLINE void maxpool_row(const PoolRun<T>& run, T* y, std::uint8_t* argmax) {
  const PoolShape& shape = *run.shape;
  const Span rows = window_span(run.p, shape.stride_h, shape.pad_h, shape.size_h, shape.h);
  for (int q = 0; q < shape.q; ++q) {
    const Span cols = window_span(q, shape.stride_w, shape.pad_w, shape.size_w, shape.w);
    const std::int64_t at = std::int64_t{q} * shape.c;
    for_channels(shape.c, Winner<T>{shape, rows, cols, run.rows, y + at, argmax + at});
  }
}

// dx[c] += dy[c] where argmax[c] is `code`. Chosen by the bits of dy: without a branch, and without
// touching a NaN or an infinity that belongs to another pixel.
template <class T>
CONVNET_INLINE void add_where(int channels, int code, const std::uint8_t* argmax, const T* dy,
                              float* dx) {
  CONVNET_SIMD_16
  for (int c = 0; c < channels; ++c) {
    const std::uint32_t chosen = 0u - static_cast<std::uint32_t>(argmax[c] == code);
    dx[c] += float_from_bits(float_bits(read(dy[c])) & chosen);
  }
}

// `sum` has room for the channels of a pixel.
template <class T>
CONVNET_INLINE void maxpool_bprop_row(const GatherRun<T>& run, float* sum, T* dx) {
  const PoolShape& shape = *run.shape;
  const int channels = shape.c;
  const Span ps = covering_span(run.h, shape.stride_h, shape.pad_h, shape.size_h, shape.p);
  for (int w = run.begin; w < run.end; ++w) {
    const Span qs = covering_span(w, shape.stride_w, shape.pad_w, shape.size_w, shape.q);
    std::fill(sum, sum + channels, 0.0f);
    for (int p = ps.begin; p < ps.end; ++p) {
      const int r = run.h + shape.pad_h - p * shape.stride_h;
      for (int q = qs.begin; q < qs.end; ++q) {
        const int s = w + shape.pad_w - q * shape.stride_w;
        const std::int64_t at = (std::int64_t{p} * shape.q + q) * channels;
        add_where(channels, r * shape.size_w + s, run.argmax + at, run.dy + at, sum);
      }
    }
    T* out = dx + std::int64_t{w - run.begin} * channels;
    CONVNET_SIMD
    for (int c = 0; c < channels; ++c) write(out + c, sum[c]);
  }
}

}  // namespace

template <class T>
void maxpool_fprop_row(const PoolRun<T>& run, T* y, std::uint8_t* argmax) {
  if (const auto* kernels = kernels_for<T>(run.shape->c, false)) {
    kernels->maxpool_fprop(run, y, argmax);
  } else {
    vectorized<maxpool_row<T>>(run, y, argmax);
  }
}

template <class T>
void maxpool_bprop_pixels(const GatherRun<T>& run, T* dx) {
  if (const auto* kernels = kernels_for<T>(run.shape->c, false)) {
    kernels->maxpool_bprop(run, dx);
  } else {
    std::vector<float> sum(static_cast<std::size_t>(run.shape->c));
    vectorized<maxpool_bprop_row<T>>(run, sum.data(), dx);
  }
}

template <class T>
void maxpool_fprop(const PoolShape& shape, const T* x, T* y, std::uint8_t* argmax, Stream) {
  const std::int64_t image_row = std::int64_t{shape.w} * shape.c;
  const std::int64_t row = std::int64_t{shape.q} * shape.c;
  const std::int64_t work = row * shape.size_h * shape.size_w;
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kChunk / work);
  const auto task = [&](std::int64_t first, std::int64_t rows) {
    for (std::int64_t i = first; i < first + rows; ++i) {
      const auto p = static_cast<int>(i % shape.p);
      const Span span = window_span(p, shape.stride_h, shape.pad_h, shape.size_h, shape.h);
      const T* starts[256];  // a window has no more elements
      for (int h = span.begin; h < span.end; ++h) {
        starts[h - span.begin] = x + (i / shape.p * shape.h + h) * image_row;
      }
      maxpool_fprop_row<T>({&shape, p, starts}, y + i * row, argmax + i * row);
    }
  };
  parallel_chunks(std::int64_t{shape.n} * shape.p, rows_per_task, task);
}

template <class T>
void maxpool_bprop(const PoolShape& shape, const T* dy, const std::uint8_t* argmax, T* dx, Stream) {
  const std::int64_t outputs = std::int64_t{shape.p} * shape.q * shape.c;
  const std::int64_t row = std::int64_t{shape.w} * shape.c;
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kChunk / row);
  const auto task = [&](std::int64_t first, std::int64_t rows) {
    for (std::int64_t i = first; i < first + rows; ++i) {
      const std::int64_t n = i / shape.h;
      const auto h = static_cast<int>(i % shape.h);
      maxpool_bprop_pixels<T>({&shape, h, 0, shape.w, dy + n * outputs, argmax + n * outputs},
                              dx + i * row);
    }
  };
  parallel_chunks(std::int64_t{shape.n} * shape.h, rows_per_task, task);
}

CONVNET_FOR_BOTH_TYPES(maxpool_fprop_row);
CONVNET_FOR_BOTH_TYPES(maxpool_bprop_pixels);
CONVNET_FOR_BOTH_TYPES(maxpool_fprop);
CONVNET_FOR_BOTH_TYPES(maxpool_bprop);

}  // namespace convnet
