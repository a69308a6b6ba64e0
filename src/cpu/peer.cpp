// dst[row, col] = src[row, col] and dst[row, col] += src[row, col] over a block (ops.h). The
// logical devices of the host share one memory, so the device numbers do not matter here.
#include <cstring>

#include "elements.h"
#include "ops.h"
#include "parallel.h"

namespace convnet {
namespace {

template <class T>
CONVNET_INLINE void add_row(std::int64_t count, const T* src, T* dst) {
  CONVNET_SIMD
  for (std::int64_t i = 0; i < count; ++i) write(dst + i, read(dst[i]) + read(src[i]));
}

// run(count, src, dst) over consecutive pieces of every row of the block.
template <class T, class Run>
void for_rows(const PeerShape& shape, const T* src, T* dst, const Run& run) {
  const bool contiguous = shape.dst_stride == shape.cols && shape.src_stride == shape.cols;
  const std::int64_t rows = contiguous ? 1 : shape.rows;
  const std::int64_t cols = contiguous ? shape.rows * shape.cols : shape.cols;
  const std::int64_t chunks = ceil_div(cols, kChunk);
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kChunk / cols);
  parallel_for(ceil_div(rows, rows_per_task) * chunks, [&](std::int64_t task) {
    const std::int64_t begin = task % chunks * kChunk;
    const std::int64_t size = std::min(kChunk, cols - begin);
    const std::int64_t first = task / chunks * rows_per_task;
    const std::int64_t last = std::min(rows, first + rows_per_task);
    for (std::int64_t row = first; row < last; ++row) {
      run(size, src + row * shape.src_stride + begin, dst + row * shape.dst_stride + begin);
    }
  });
}

}  // namespace

template <class T>
void peer_copy(const PeerShape& shape, const T* src, T* dst, Stream) {
  for_rows(shape, src, dst, [](std::int64_t count, const T* from, T* to) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
  });
}

template <class T>
void peer_add(const PeerShape& shape, const T* src, T* dst, Stream) {
  for_rows(shape, src, dst, vectorized<add_row<T>>);
}

CONVNET_FOR_BOTH_TYPES(peer_copy);
CONVNET_FOR_BOTH_TYPES(peer_add);

}  // namespace convnet
