// LRN and the max-pool above it in one pass each way; the output of LRN is never in memory.
//
// Forward, a task takes an image, or a band of its rows of outputs: it normalises rows of the image
// into a ring that holds as many as a window is high, some 80 KB that stay in the L2 cache, and
// pools from there. Backward, a task takes rows of the image and goes over them by a few pixels: it
// gathers dy for them and runs the backward pass of LRN, which masks by the ReLU below. Both call
// what lrn.cpp and maxpool.cpp call, in the same order: the results have the same
// bits, also of bfloat16, as what lies between the two is rounded here too.
//
// Cost, per element of x at 3/2: 5.2 bytes forward and 9.2 backward, where apart they are 13.2 and
// 17.2 (the mask 12 more).
#include <memory>

#include "elements.h"
#include "lrn.h"
#include "maxpool.h"
#include "parallel.h"
#include "pool.h"

namespace convnet {
namespace {

constexpr std::int64_t kPiece = 1024;  // floats of dy gathered at a time

// Rows of outputs that a task makes: all of an image, fewer where there are few images.
int rows_per_band(const PoolShape& shape) {
  constexpr int kTasks = 16;
  const int bands = std::min((kTasks + shape.n - 1) / shape.n, shape.p);
  return (shape.p + bands - 1) / bands;
}

// The ring of normalised rows of one image.
template <class T>
class Ring {
 public:
  Ring(const LrnShape& lrn, const PoolShape& pool)
      : lrn_(lrn),
        pool_(pool),
        slots_(std::min(pool.size_h, pool.h)),
        row_(std::int64_t{pool.w} * pool.c),
        memory_(new T[static_cast<std::size_t>(slots_ * row_)]) {}

  // Sets starts[i] for rows span.begin + i of the image, which no earlier span began after.
  void rows(const T* image, const Span& span, const T** starts) {
    for (int h = span.begin; h < span.end; ++h) {
      T* slot = memory_.get() + h % slots_ * row_;
      if (h >= next_) lrn_.fprop(pool_.w, image + h * row_, slot);
      starts[h - span.begin] = slot;
    }
    next_ = span.end;
  }

 private:
  LrnPixels<T> lrn_;
  const PoolShape& pool_;
  int slots_;
  std::int64_t row_;
  std::unique_ptr<T[]> memory_;
  int next_ = 0;  // rows before it have been normalised, or are not needed
};

}  // namespace

template <class T>
void lrn_maxpool_fprop(const LrnShape& lrn, const PoolShape& pool, const T* x, T* y,
                       std::uint8_t* argmax, Stream) {
  const std::int64_t image = std::int64_t{pool.h} * pool.w * pool.c;
  const std::int64_t row = std::int64_t{pool.q} * pool.c;
  const int band = rows_per_band(pool);
  const int bands = (pool.p + band - 1) / band;
  parallel_for(std::int64_t{pool.n} * bands, [&](std::int64_t task) {
    const std::int64_t n = task / bands;
    const int first = static_cast<int>(task % bands) * band;
    Ring<T> ring(lrn, pool);
    for (int p = first; p < std::min(first + band, pool.p); ++p) {
      const Span span = window_span(p, pool.stride_h, pool.pad_h, pool.size_h, pool.h);
      const T* starts[256];  // a window has no more elements
      ring.rows(x + n * image, span, starts);
      const std::int64_t at = (n * pool.p + p) * row;
      maxpool_fprop_row<T>({&pool, p, starts}, y + at, argmax + at);
    }
  });
}

template <class T>
void lrn_maxpool_bprop(const LrnShape& lrn, const PoolShape& pool, const T* x, const T* dy,
                       const std::uint8_t* argmax, bool relu_mask, T* dx, Stream) {
  const bool stream = std::int64_t{lrn.pixels} * lrn.c * 4 > kCacheBytes;
  const std::int64_t outputs = std::int64_t{pool.p} * pool.q * pool.c;
  const std::int64_t row = std::int64_t{pool.w} * pool.c;
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, 2 * kChunk / row);
  const auto pixels = static_cast<int>(std::max<std::int64_t>(1, kPiece / pool.c));
  const auto task = [&](std::int64_t first, std::int64_t rows) {
    const LrnPixels<T> norm(lrn, stream);
    const std::unique_ptr<T[]> grad(new T[static_cast<std::size_t>(pixels) * pool.c]);
    for (std::int64_t i = first; i < first + rows; ++i) {
      const std::int64_t n = i / pool.h;
      const auto h = static_cast<int>(i % pool.h);
      for (int w = 0; w < pool.w; w += pixels) {
        const int end = std::min(w + pixels, pool.w);
        maxpool_bprop_pixels<T>({&pool, h, w, end, dy + n * outputs, argmax + n * outputs},
                                grad.get());
        const std::int64_t at = i * row + std::int64_t{w} * pool.c;
        norm.bprop(end - w, x + at, grad.get(), relu_mask, dx + at);
      }
    }
  };
  parallel_chunks(std::int64_t{pool.n} * pool.h, rows_per_task, task);
}

CONVNET_FOR_BOTH_TYPES(lrn_maxpool_fprop);
CONVNET_FOR_BOTH_TYPES(lrn_maxpool_bprop);

}  // namespace convnet
