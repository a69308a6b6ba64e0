// What the three passes of a locally connected layer share.
//
// Nothing is shared between places, so each is a small matrix product with the images as one of its
// sizes,
//   C[m, j] = sum_i A[m, i] B[j, i],
// and the tiles of all of them make up one grid. gemm/simt.cuh says how a block computes a tile.
#pragma once

#include "fast_divmod.cuh"
#include "gemm/epilogue.cuh"
#include "gemm/operands.cuh"
#include "gemm/simt.cuh"
#include "ops.h"

namespace convnet {

// Blocks of 64 threads that a multiprocessor should hold: leaves a thread 128 registers.
constexpr int kLocalBlocks = 8;

// What the three passes need to know; sizes in elements.
struct LocalIndex {
  ConvShape shape;
  Taps taps;                  // of a window: length is R S C/G
  unsigned group_c, group_k;  // C/G, K/G
  unsigned x_image, y_image;  // from one image to the next
  unsigned rows, columns;     // of each product
  unsigned tiles_m, tiles_n;
  FastDivmod by_group_k, by_stride_h, by_stride_w;
  bool vector_out;
};

// The part of the grid that a block works on. `place` is a place of y, or in dgrad a pixel of x.
struct Work {
  unsigned first_row, first_column, group, place;
};

template <class T>
__device__ Work block_work(const LocalIndex& local) {
  unsigned rest = blockIdx.x;
  Work work;
  work.first_column = rest % local.tiles_n * T::kN;
  rest /= local.tiles_n;
  work.first_row = rest % local.tiles_m * T::kM;
  rest /= local.tiles_m;
  work.group = rest % local.shape.groups;
  work.place = rest / local.shape.groups;
  return work;
}

template <class T>
__device__ Output<T> output_of(const LocalIndex& local, const Work& work, T* out,
                               const Epilogue<T>& epilogue, unsigned first_channel) {
  Output<T> output{};
  output.out.out = out;
  output.first_row = work.first_row;
  output.first_column = work.first_column;
  output.rows = local.rows;
  output.columns = local.columns;
  output.first_channel = first_channel;
  output.vector = local.vector_out;
  output.epilogue = epilogue;
  return output;
}

// Steps along i.
__device__ inline unsigned steps_for(unsigned length) { return (length + kTileK - 1) / kTileK; }

// For products of rows x columns, one for each of `places` and each group.
template <class T>
LocalIndex make_local(const ConvShape& shape, int rows, int columns) {
  LocalIndex local{};
  local.shape = shape;
  local.group_c = static_cast<unsigned>(shape.c / shape.groups);
  local.group_k = static_cast<unsigned>(shape.k / shape.groups);
  local.taps.height = static_cast<unsigned>(shape.h);
  local.taps.width = static_cast<unsigned>(shape.w);
  local.taps.pitch = static_cast<unsigned>(shape.c);
  local.taps.length = static_cast<unsigned>(shape.r) * shape.s * local.group_c;
  local.taps.order.by_channels = FastDivmod(local.group_c);
  local.taps.by_width = FastDivmod(shape.s);
  local.x_image = static_cast<unsigned>(shape.h) * shape.w * shape.c;
  local.y_image = static_cast<unsigned>(shape.p) * shape.q * shape.k;
  local.rows = static_cast<unsigned>(rows);
  local.columns = static_cast<unsigned>(columns);
  local.tiles_m = (local.rows + T::kM - 1) / T::kM;
  local.tiles_n = (local.columns + T::kN - 1) / T::kN;
  local.by_group_k = FastDivmod(local.group_k);
  local.by_stride_h = FastDivmod(shape.stride_h);
  local.by_stride_w = FastDivmod(shape.stride_w);
  return local;
}

inline dim3 grid_of(const LocalIndex& local, int places) {
  return dim3(local.tiles_n * local.tiles_m * local.shape.groups * places);
}

}  // namespace convnet
