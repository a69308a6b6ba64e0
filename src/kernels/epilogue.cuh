// What happens to the sums of a product on their way to memory, and the sum over splits.
//
// A product with few tiles and a long reduction is split along k over several blocks. Each split
// writes its sums to the workspace, laid out as the result is, and sum_splits() adds them in the
// order of k; where there is one split, the product's kernel finishes the result by itself. Both
// do the same to a sum, so a result does not depend on where it was finished.
#pragma once

#include "device/launch.h"
#include "device/vectors.h"
#include "tile.cuh"

namespace convnet {

// result = mask(relu(sum + bias)); each of the three may be absent.
struct Epilogue {
  const float* bias;  // [channels], or null
  const float* mask;  // of the result's shape, or null: zero where mask <= 0
  bool relu;
};

// `index` is the place in the result, `channel` its last index.
__device__ inline float finish(float sum, const Epilogue& epilogue, unsigned channel,
                               unsigned index) {
  if (epilogue.bias != nullptr) sum += __ldg(epilogue.bias + channel);
  if (epilogue.relu) sum = 0.0f > sum ? 0.0f : sum;  // NaN passes
  if (epilogue.mask != nullptr && __ldg(epilogue.mask + index) <= 0.0f) sum = 0.0f;
  return sum;
}

// Where a tile's sums go: element (row, column) of the product to out[start(row) + column], as far
// as row < rows and column < columns.
struct Output {
  float* out;
  unsigned first_row, first_column;  // of the tile
  unsigned rows, columns;            // of the product
  unsigned first_channel;            // of column 0, for the bias
  bool vector;  // columns and start(row) are multiples of 4, out is aligned to 16 bytes
  Epilogue epilogue;
};

// What becomes of finished values: they are the result, from out[at] on.
struct StoreResult {
  __device__ void operator()(float* out, unsigned at, float4 four) const { store4(out + at, four); }
  __device__ void operator()(float* out, unsigned at, float value) const { out[at] = value; }
};

template <class T, class RowStart, class StoreOp = StoreResult>
__device__ inline void store_tile(const float (&sum)[T::kThreadM][T::kThreadN],
                                  const Output& output, RowStart start, StoreOp store_op = {}) {
#pragma unroll
  for (int i = 0; i < T::kThreadM; ++i) {
    const unsigned row = output.first_row + T::row(i);
    if (row >= output.rows) continue;
    const unsigned row_start = start(row);
#pragma unroll
    for (int j = 0; j < T::kThreadN; j += 4) {
      const unsigned column = output.first_column + T::column(j);
      const auto finished = [&](int l) {
        return finish(sum[i][j + l], output.epilogue, output.first_channel + column + l,
                      row_start + column + l);
      };
      const unsigned at = row_start + column;
      if (output.vector) {
        if (column >= output.columns) continue;
        store_op(output.out, at, make_float4(finished(0), finished(1), finished(2), finished(3)));
      } else {
#pragma unroll
        for (int l = 0; l < 4; ++l) {
          if (column + l < output.columns) store_op(output.out, at + l, finished(l));
        }
      }
    }
  }
}

// out[i] = finish(sum over splits of partials[split][i]), i < count; `channels` is the length of
// the last dimension. In conv.cu.
void sum_splits(OpName op, const float* partials, unsigned splits, std::int64_t count,
                std::int64_t channels, const Epilogue& epilogue, float* out, void* stream);

// The same for out [count / channels, channels], and then dropout of it.
struct DropoutDraw;
void sum_splits_and_drop(OpName op, const float* partials, unsigned splits, std::int64_t count,
                         std::int64_t channels, const Epilogue& epilogue, const DropoutDraw& draw,
                         float* out, void* stream);

}  // namespace convnet
