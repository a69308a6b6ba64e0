// Dropout: y = x * mask * scale, with the mask drawn from Philox by position (ops.h, philox.h).
//
// One Philox call gives the numbers of four neighbouring positions 4 i .. 4 i + 3. Each row is cut
// into a head up to the first such boundary, whole fours, which vectorise across i, and a tail.
// Integer work: 10 rounds of two 32 x 32 -> 64 multiplications for four elements.
#include "elements.h"
#include "ops.h"
#include "parallel.h"
#include "philox.h"

namespace convnet {
namespace {

struct Mask {
  std::uint64_t seed;
  std::uint32_t stream, step, threshold;
  float scale;
};

CONVNET_INLINE float masked(const Mask& mask, std::uint32_t bits, float x) {
  return dropout_keeps(bits, mask.threshold) ? x * mask.scale : 0.0f;
}

// Elements `index` .. `index + count` - 1 of the tensor, all inside one group of four.
template <class T>
void dropout_part(const Mask& mask, std::int64_t index, std::int64_t count, const T* x, T* y) {
  const Philox4 bits =
      philox4x32(mask.seed, static_cast<std::uint64_t>(index / 4), mask.stream, mask.step);
  for (std::int64_t i = 0; i < count; ++i) {
    write(y + i, masked(mask, bits.v[index % 4 + i], read(x[i])));
  }
}

template <class T>
CONVNET_INLINE void dropout_fours(const Mask& mask, std::uint64_t index4, std::int64_t fours,
                                  const T* x, T* y) {
  const Mask m = mask;
  CONVNET_SIMD
  for (std::int64_t i = 0; i < fours; ++i) {
    const Philox4 bits =
        philox4x32(m.seed, index4 + static_cast<std::uint64_t>(i), m.stream, m.step);
    write(y + 4 * i + 0, masked(m, bits.v[0], read(x[4 * i + 0])));
    write(y + 4 * i + 1, masked(m, bits.v[1], read(x[4 * i + 1])));
    write(y + 4 * i + 2, masked(m, bits.v[2], read(x[4 * i + 2])));
    write(y + 4 * i + 3, masked(m, bits.v[3], read(x[4 * i + 3])));
  }
}

template <class T>
void dropout_run(const Mask& mask, std::int64_t index, std::int64_t count, const T* x, T* y) {
  const std::int64_t head = std::min<std::int64_t>((4 - index % 4) % 4, count);
  if (head > 0) dropout_part(mask, index, head, x, y);
  const std::int64_t fours = (count - head) / 4;
  vectorized<dropout_fours<T>>(mask, static_cast<std::uint64_t>((index + head) / 4), fours,
                               x + head, y + head);
  const std::int64_t done = head + 4 * fours;
  if (done < count) dropout_part(mask, index + done, count - done, x + done, y + done);
}

}  // namespace

template <class T>
void dropout(const DropoutShape& shape, double drop, float scale, std::uint64_t seed,
             std::uint32_t stream_id, std::uint32_t step, const StepState* state, const T* x, T* y,
             Stream) {
  if (state != nullptr) {
    seed = state_seed(*state);
    step = state->step;
  }
  const Mask mask{seed, stream_id, step, dropout_threshold(drop), scale};
  // Whole rows of the tensor follow each other without a gap and count as one long row.
  const bool whole_rows = shape.cols == shape.global_cols;
  const std::int64_t rows = whole_rows ? 1 : shape.rows;
  const std::int64_t cols = whole_rows ? shape.rows * shape.cols : shape.cols;
  const std::int64_t chunks = ceil_div(cols, kChunk);
  const std::int64_t origin = shape.row_offset * shape.global_cols + shape.col_offset;
  // Short rows share a task.
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kChunk / cols);
  parallel_for(ceil_div(rows, rows_per_task) * chunks, [&](std::int64_t task) {
    const std::int64_t begin = task % chunks * kChunk;
    const std::int64_t size = std::min(kChunk, cols - begin);
    const std::int64_t first = task / chunks * rows_per_task;
    const std::int64_t last = std::min(rows, first + rows_per_task);
    for (std::int64_t row = first; row < last; ++row) {
      const std::int64_t local = row * cols + begin;
      dropout_run(mask, origin + row * shape.global_cols + begin, size, x + local, y + local);
    }
  });
}

CONVNET_FOR_BOTH_TYPES(dropout);

}  // namespace convnet
