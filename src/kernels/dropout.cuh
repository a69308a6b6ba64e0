// What dropout keeps, by position: for dropout.cu and for the epilogues of dense layers.
#pragma once

#include "device/vectors.h"
#include "floats.cuh"
#include "ops.h"
#include "philox.h"

namespace convnet {

// Element (row, col) of a matrix is number origin + row global_cols + col of a Philox stream.
struct DropoutDraw {
  bool wanted;
  float scale;
  std::uint32_t stream, step, threshold;
  std::uint64_t seed, origin, global_cols;
  const StepState* state;

  __device__ void begin() {
    if (state == nullptr) return;
    seed = state_seed(*state);
    step = state->step;
  }
  __device__ Philox4 four(std::uint64_t index4) const {
    return philox4x32(seed, index4, stream, step);
  }
  __device__ float masked(std::uint32_t bits, float x) const {
    return dropout_keeps(bits, threshold) ? x * scale : 0.0f;
  }
};

inline DropoutDraw dropout_draw(const DropoutRule& rule) {
  DropoutDraw draw{};
  draw.wanted = true;
  draw.scale = rule.scale;
  draw.stream = rule.stream_id;
  draw.step = rule.step;
  draw.threshold = dropout_threshold(rule.drop);
  draw.seed = rule.seed;
  const DropoutShape& shape = rule.shape;
  draw.origin = static_cast<std::uint64_t>(shape.row_offset * shape.global_cols + shape.col_offset);
  draw.global_cols = static_cast<std::uint64_t>(shape.global_cols);
  draw.state = rule.state;
  return draw;
}

// y [rows, columns]: what the block's tile of kM x kN, from (first_row, first_column) on, has
// stored there, is dropped or scaled. It comes from L2 or L1. In a pass of its own, a Philox call
// serves four neighbours wherever the row begins, and the tile's sums have given up their
// registers.
template <int kM, int kN, int kThreads, class T>
__device__ inline void drop_tile(DropoutDraw draw, T* y, unsigned first_row, unsigned rows,
                                 unsigned first_column, unsigned columns) {
  constexpr unsigned kFours = kN / 4 + 1;  // that the piece of a row may touch
  draw.begin();
  __syncthreads();  // what other threads of the block have stored
#pragma unroll 1
  for (unsigned i = threadIdx.x; i < kM * kFours; i += kThreads) {
    const unsigned row = first_row + i / kFours, four = i % kFours;
    if (row >= rows) break;
    const std::uint64_t begin = draw.origin + row * draw.global_cols + first_column;
    const Philox4 bits = draw.four(begin / 4 + four);
    // Columns before the piece's beginning are negative: they wrap to numbers beyond any size.
    const unsigned col = 4 * four - static_cast<unsigned>(begin % 4);
    const unsigned end = min(unsigned{kN}, columns - first_column);
    T* const piece = y + (row * columns + first_column + col);
    if (col < end && end - col >= 4 && aligned4(piece)) {
      Floats<4> values = load_floats<4>(piece);
      for (int t = 0; t < 4; ++t) values.v[t] = draw.masked(bits.v[t], values.v[t]);
      store_floats(piece, values);
    } else {
      for (unsigned t = 0; t < 4; ++t) {
        T* const at = y + (row * columns + first_column + col + t);
        if (col + t < end) store(at, draw.masked(bits.v[t], load(at)));
      }
    }
  }
}

}  // namespace convnet
