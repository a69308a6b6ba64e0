// Dropout: y = x * mask * scale, with the mask drawn from Philox by position (ops.h, philox.h).
//   mask[row, col] = number i of Philox stream (seed, stream_id, step) >= drop,
//   i = (row + row_offset) * global_cols + col + col_offset
//
// Tensors:  x [rows, cols] read, y [rows, cols] written; y may be x. The backward pass is the same
//           operation on dy: the mask is computed again and never stored.
// Mapping:  one Philox call gives the numbers of positions 4 j .. 4 j + 3, so a thread takes those
//           of them that lie in its row: four, or fewer at either end of a row, whose first
//           position need not be a multiple of four. Four go by one 128-bit access where both
//           addresses are aligned to 16 bytes. No shared memory, no barriers.
// Limits:   8 bytes an element. Philox costs 10 rounds of two 32 x 32 -> 64-bit multiplications and
//           six other operations, about 30 instructions an element: below the time of the memory.
#include "device.h"
#include "divider.cuh"
#include "floats.cuh"
#include "ops.h"
#include "philox.h"
#include "warp.cuh"

namespace convnet {
namespace {

struct Mask {
  std::uint64_t seed;
  std::uint32_t stream, step, threshold;
  float scale;
};

// The block of positions that x covers. A row has `fours` threads.
struct Place {
  std::uint64_t origin, global_cols;  // position of x[0], and from one row to the next
  unsigned rows, cols, fours;
  Divider by_fours;
};

__device__ float masked(const Mask& mask, std::uint32_t bits, float x) {
  return dropout_keeps(bits, mask.threshold) ? x * mask.scale : 0.0f;
}

__global__ void __launch_bounds__(kBlockThreads)
    dropout_kernel(Mask mask, Place place, const StepState* state, const float* x, float* y) {
  unsigned row = global_thread();
  if (row >= place.rows * place.fours) return;
  if (state != nullptr) {
    mask.seed = state_seed(*state);
    mask.step = state->step;
  }
  const auto four = static_cast<unsigned>(place.by_fours.split(&row));
  const std::uint64_t row_begin = place.origin + row * place.global_cols;
  const std::uint64_t index4 = row_begin / 4 + four;
  const Philox4 bits = philox4x32(mask.seed, index4, mask.stream, mask.step);
  // Columns before the row's beginning are negative: they wrap to numbers beyond any size.
  const unsigned col = 4 * four - static_cast<unsigned>(row_begin % 4);
  const unsigned at = row * place.cols + col;
  if (col < place.cols && place.cols - col >= 4 && aligned16(x + at) && aligned16(y + at)) {
    Floats<4> values = load_floats<4>(x + at);
    for (int t = 0; t < 4; ++t) values.v[t] = masked(mask, bits.v[t], values.v[t]);
    store_floats(y + at, values);
    return;
  }
  for (unsigned t = 0; t < 4; ++t) {
    if (col + t < place.cols) y[at + t] = masked(mask, bits.v[t], x[at + t]);
  }
}

}  // namespace

void dropout(const DropoutShape& shape, double drop, float scale, std::uint64_t seed,
             std::uint32_t stream_id, std::uint32_t step, const StepState* state, const float* x,
             float* y, Stream stream) {
  const Mask mask{seed, stream_id, step, dropout_threshold(drop), scale};
  Place place;
  place.origin =
      static_cast<std::uint64_t>(shape.row_offset * shape.global_cols + shape.col_offset);
  place.global_cols = static_cast<std::uint64_t>(shape.global_cols);
  // Whole rows of the tensor follow each other without a gap and count as one long row.
  const bool whole_rows = shape.cols == shape.global_cols;
  place.rows = static_cast<unsigned>(whole_rows ? 1 : shape.rows);
  place.cols = static_cast<unsigned>(whole_rows ? shape.rows * shape.cols : shape.cols);
  // A row that begins at the worst place, 3 past a multiple of four, touches this many fours; never
  // more than it has columns, so that the threads are fewer than 2^31.
  place.fours = (place.cols + 6) / 4;
  place.by_fours = Divider(place.fours);
  const std::int64_t threads = std::int64_t{place.rows} * place.fours;
  launch("dropout", dropout_kernel, blocks_for(threads), dim3(kBlockThreads), 0, stream, mask,
         place, state, x, y);
}

}  // namespace convnet
