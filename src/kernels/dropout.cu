// Dropout: y = x * mask * scale, with the mask drawn from Philox by position (ops.h, philox.h).
//   mask[row, col] = number i of Philox stream (seed, stream_id, step) >= drop,
//   i = (row + row_offset) * global_cols + col + col_offset
//
// Tensors:  x [rows, cols] read, y [rows, cols] written, float32 or bfloat16; y may be x. The backward pass is the same
//           operation on dy: the mask is computed again and never stored.
// Mapping:  one Philox call gives the numbers of positions 4 j .. 4 j + 3, so a thread takes those
//           of them that lie in its row: four, or fewer at either end of a row, whose first
//           position need not be a multiple of four. Four go by one access where both addresses
//           are aligned to four elements. No shared memory, no barriers.
// Limits:   8 bytes an element, 4 in bfloat16. Philox costs 10 rounds of two 32 x 32 -> 64-bit multiplications and
//           six other operations, about 30 instructions an element: below the time of the memory.
#include "device/launch.h"
#include "device/vectors.h"
#include "dropout.cuh"
#include "fast_divmod.cuh"
#include "warp.cuh"

namespace convnet {
namespace {

// How x is shared out. A row has `fours` threads.
struct Block {
  unsigned rows, cols, fours;
  FastDivmod by_fours;
};

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    dropout_kernel(DropoutDraw draw, Block block, const T* x, T* y) {
  unsigned row = global_thread();
  if (row >= block.rows * block.fours) return;
  draw.begin();
  const auto four = static_cast<unsigned>(block.by_fours.split(&row));
  const std::uint64_t row_begin = draw.origin + row * draw.global_cols;
  const Philox4 bits = draw.four(row_begin / 4 + four);
  // Columns before the row's beginning are negative: they wrap to numbers beyond any size.
  const unsigned col = 4 * four - static_cast<unsigned>(row_begin % 4);
  const unsigned at = row * block.cols + col;
  if (col < block.cols && block.cols - col >= 4 && aligned4(x + at) && aligned4(y + at)) {
    Floats<4> values = load_floats<4>(x + at);
    for (int t = 0; t < 4; ++t) values.v[t] = draw.masked(bits.v[t], values.v[t]);
    store_floats(y + at, values);
    return;
  }
  for (unsigned t = 0; t < 4; ++t) {
    if (col + t < block.cols) store(y + (at + t), draw.masked(bits.v[t], load(x + (at + t))));
  }
}

}  // namespace

template <class T>
void dropout(const DropoutShape& shape, double drop, float scale, std::uint64_t seed,
             std::uint32_t stream_id, std::uint32_t step, const StepState* state, const T* x, T* y,
             Stream stream) {
  const DropoutDraw draw = dropout_draw({shape, drop, scale, seed, stream_id, step, state});
  Block block;
  // Whole rows of the tensor follow each other without a gap and count as one long row.
  const bool whole_rows = shape.cols == shape.global_cols;
  block.rows = static_cast<unsigned>(whole_rows ? 1 : shape.rows);
  block.cols = static_cast<unsigned>(whole_rows ? shape.rows * shape.cols : shape.cols);
  // A row that begins at the worst place, 3 past a multiple of four, touches this many fours; never
  // more than it has columns, so that the threads are fewer than 2^31.
  block.fours = (block.cols + 6) / 4;
  block.by_fours = FastDivmod(block.fours);
  const std::int64_t threads = std::int64_t{block.rows} * block.fours;
  launch("dropout", dropout_kernel<T>, blocks_for(threads), dim3(kBlockThreads), 0, stream, draw,
         block, x, y);
}

CONVNET_FOR_BOTH_TYPES(dropout);

}  // namespace convnet
