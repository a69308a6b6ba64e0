// The product behind conv_*.cu and dense.cu: a block's tile of C = A B^T by register tiles.
//
//   C[m, n] = sum_k A[m, k] B[n, k]
//
// A and B are never in memory as matrices: a pass says what their elements are by two "sources",
// which read a step of kTileK along k into registers (fetch) and hand it to shared memory (put).
//
// Mapping. A block computes kM x kN of C; a thread 8 x 8 or 8 x 4 of it, in pieces of 4 x 4 that
// lie 16 rows and 32 columns apart; a warp is 4 x 8 threads. So a warp reads 4 different float4 of
// A and 8 of B from shared memory, each from 32 different banks at most, and writes rows of 128
// bytes. Shared memory: two buffers of kTileK x (kM + kN). While one is multiplied, the next step
// is on its way from global memory to registers and then to the other buffer: one barrier a step.
//
// The rows of a buffer are 4 floats longer than the tile, so that a source whose threads walk along
// k hits different banks: those of (k, row) are 4 k + row mod 32.
//
// Cost: a step is kM kN kTileK multiply-adds for (kM + kN) kTileK floats that come from L2: 64 of
// them a float with LargeTile, 43 with MediumTile, 21 with NarrowTile. From shared memory a thread
// reads 4 float4 for 64 multiply-adds, in the narrow tiles 3 for 32. Sums are formed in the order
// of k, whatever the tile.
#pragma once

#include "kernels/device/vectors.h"

namespace convnet {

constexpr int kTileK = 8;

template <int kRows, int kColumns, int kColumnsPerThread>
struct Tile {
  static constexpr int kM = kRows, kN = kColumns;
  static constexpr int kThreadM = 8, kThreadN = kColumnsPerThread;
  static constexpr int kThreads = kM * kN / (kThreadM * kThreadN);
  // Blocks at once on a multiprocessor of 64k registers: so many that nothing is spilled.
  static constexpr int blocks(bool vector) {
    if (kThreads == 256) return vector ? 2 : 1;  // 128 registers a thread, or 255
    return 384 / kThreads;                       // 168
  }
  static constexpr int kPitchM = kM + 4, kPitchN = kN + 4;
  static constexpr int kWarpM = 4 * kThreadM, kWarpN = 8 * kThreadN;
  static constexpr int kWarpsN = kN / kWarpN;
  static_assert(kM % kWarpM == 0 && kN % kWarpN == 0, "a tile is made of whole warps");

  // Where this thread's sum [i][j] lies in the tile.
  __device__ static int row(int i) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    return warp / kWarpsN * kWarpM + i / 4 * 16 + lane / 8 * 4 + i % 4;
  }
  __device__ static int column(int j) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    return warp % kWarpsN * kWarpN + j / 4 * 32 + lane % 8 * 4 + j % 4;
  }
};

using LargeTile = Tile<128, 128, 8>;
using MediumTile = Tile<128, 64, 8>;
using NarrowTile = Tile<64, 32, 4>;
using MediumWideTile = Tile<64, 128, 8>;
using WideTile = Tile<32, 64, 4>;

// ---- how the threads of a block share the reading of kRows x kTileK elements -------------------

// For memory that is contiguous along k: a thread reads 4 (or 1) successive k of kLoads rows.
template <int kRows, int kThreads, bool kVector>
struct AlongK {
  static constexpr int kWidth = kVector ? 4 : 1;
  static constexpr int kThreadsPerRow = kTileK / kWidth;
  static constexpr int kLoads = kRows * kThreadsPerRow / kThreads;

  float values[kLoads][kWidth];

  __device__ static int k() { return threadIdx.x % kThreadsPerRow * kWidth; }
  __device__ static int row(int load) {
    return threadIdx.x / kThreadsPerRow + load * (kThreads / kThreadsPerRow);
  }

  template <int kPitch>
  __device__ void put(float (&tile)[kTileK][kPitch]) const {
#pragma unroll
    for (int load = 0; load < kLoads; ++load) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) tile[k() + i][row(load)] = values[load][i];
    }
  }
};

// For memory that is contiguous along the tile: a thread reads pieces of 4 (or 1) rows at one k.
template <int kRows, int kThreads, bool kVector>
struct AlongRows {
  static constexpr int kWidth = kVector ? 4 : 1;
  static constexpr int kThreadsPerK = kThreads / kTileK;
  static constexpr int kLoads = kRows / (kThreadsPerK * kWidth);

  float values[kLoads][kWidth];

  __device__ static int k() { return threadIdx.x / kThreadsPerK; }
  __device__ static int row(int load) {
    return (threadIdx.x % kThreadsPerK + load * kThreadsPerK) * kWidth;
  }

  template <int kPitch>
  __device__ void put(float (&tile)[kTileK][kPitch]) const {
#pragma unroll
    for (int load = 0; load < kLoads; ++load) {
      if constexpr (kWidth == 4) {
        const float* v = values[load];
        store4(&tile[k()][row(load)], make_float4(v[0], v[1], v[2], v[3]));
      } else {
        tile[k()][row(load)] = values[load][0];
      }
    }
  }
};

// values = data[offset ...], or zeros where that is not `valid`.
template <int kWidth>
__device__ inline void read(float (&values)[kWidth], const float* data, unsigned offset,
                            bool valid) {
  if constexpr (kWidth == 4) {
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (valid) v = load4_readonly(data + offset);
    values[0] = v.x;
    values[1] = v.y;
    values[2] = v.z;
    values[3] = v.w;
  } else {
    values[0] = valid ? __ldg(data + offset) : 0.0f;
  }
}

// ---- the product -------------------------------------------------------------------------------

// A step of A and B in shared memory.
template <class T>
struct Stage {
  float a[kTileK][T::kPitchM], b[kTileK][T::kPitchN];
};

// sum += the product of the stage's kTileK columns of A and B.
template <class T>
__device__ inline void multiply_step(const Stage<T>& stage,
                                     float (&sum)[T::kThreadM][T::kThreadN]) {
  const int row = T::row(0), column = T::column(0);
#pragma unroll 2  // all 8 at once take more registers than there are
  for (int k = 0; k < kTileK; ++k) {
    float a[T::kThreadM], b[T::kThreadN];
#pragma unroll
    for (int i = 0; i < T::kThreadM; i += 4) {
      const float4 v = load4(&stage.a[k][row + i * 4]);
      a[i] = v.x;
      a[i + 1] = v.y;
      a[i + 2] = v.z;
      a[i + 3] = v.w;
    }
#pragma unroll
    for (int j = 0; j < T::kThreadN; j += 4) {
      const float4 v = load4(&stage.b[k][column + j * 8]);
      b[j] = v.x;
      b[j + 1] = v.y;
      b[j + 2] = v.z;
      b[j + 3] = v.w;
    }
#pragma unroll
    for (int i = 0; i < T::kThreadM; ++i) {
#pragma unroll
      for (int j = 0; j < T::kThreadN; ++j) sum[i][j] += a[i] * b[j];
    }
  }
}

// For multiply(): nothing else to do with a step.
struct OnlyMultiply {
  template <class Rows>
  __device__ void operator()(const Rows&) {}
};

// sum = the block's tile over the steps [begin, end) along k. `also(tile)` is called with each
// step's part of A, [kTileK][kM + 4] in shared memory.
template <class T, class SourceA, class SourceB, class Also>
__device__ inline void multiply(SourceA& a, SourceB& b, unsigned begin, unsigned end,
                                float (&sum)[T::kThreadM][T::kThreadN], Also& also) {
  __shared__ __align__(16) Stage<T> stages[2];
#pragma unroll
  for (int i = 0; i < T::kThreadM; ++i) {
#pragma unroll
    for (int j = 0; j < T::kThreadN; ++j) sum[i][j] = 0.0f;
  }
  if (begin == end) return;  // all threads of the block do
  a.fetch(begin * kTileK);
  b.fetch(begin * kTileK);
  a.put(stages[0].a);
  b.put(stages[0].b);
  __syncthreads();
  int buffer = 0;
  for (unsigned step = begin + 1; step < end; ++step) {
    a.fetch(step * kTileK);
    b.fetch(step * kTileK);
    multiply_step(stages[buffer], sum);
    also(stages[buffer].a);
    // The other buffer's last readers have passed the barrier of the step before.
    buffer ^= 1;
    a.put(stages[buffer].a);
    b.put(stages[buffer].b);
    __syncthreads();
  }
  multiply_step(stages[buffer], sum);
  also(stages[buffer].a);
}

}  // namespace convnet
