// The main loop on any GPU: a block's tile of C = A B^T by FFMA, from register tiles.
//
//   C[m, n] = sum_k A[m, k] B[n, k]
//
// A and B are never in memory as matrices: operands (operands.cuh) say where their elements are.
// The loop reads a step of kTileK along k into registers, as float32 whatever it is in memory, and
// hands it to shared memory.
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

#include "epilogue.cuh"
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
struct SimtAlongK {
  static constexpr int kStep = kTileK;
  static constexpr int kWidth = kVector ? 4 : 1;
  static constexpr int kThreadsPerRow = kTileK / kWidth;
  static constexpr int kLoads = kRows * kThreadsPerRow / kThreads;

  using Registers = float[kLoads][kWidth];

  __device__ static int k() { return threadIdx.x % kThreadsPerRow * kWidth; }
  __device__ static int row(int load) {
    return threadIdx.x / kThreadsPerRow + load * (kThreads / kThreadsPerRow);
  }

  template <int kPitch>
  __device__ static void put(const Registers& values, float (&tile)[kTileK][kPitch]) {
#pragma unroll
    for (int load = 0; load < kLoads; ++load) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) tile[k() + i][row(load)] = values[load][i];
    }
  }
};

// For memory that is contiguous along the tile: a thread reads pieces of 4 (or 1) rows at one k.
template <int kRows, int kThreads, bool kVector>
struct SimtAlongRows {
  static constexpr int kStep = kTileK;
  static constexpr int kWidth = kVector ? 4 : 1;
  static constexpr int kThreadsPerK = kThreads / kTileK;
  static constexpr int kLoads = kRows / (kThreadsPerK * kWidth);

  using Registers = float[kLoads][kWidth];

  __device__ static int k() { return threadIdx.x / kThreadsPerK; }
  __device__ static int row(int load) {
    return (threadIdx.x % kThreadsPerK + load * kThreadsPerK) * kWidth;
  }

  template <int kPitch>
  __device__ static void put(const Registers& values, float (&tile)[kTileK][kPitch]) {
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

// values = from[0 ...], or zeros where that is not `valid`.
template <int kWidth, class Element>
__device__ inline void read(float (&values)[kWidth], const Element* from, bool valid) {
  if constexpr (kWidth == 4) {
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (valid) v = load4_readonly(from);
    values[0] = v.x;
    values[1] = v.y;
    values[2] = v.z;
    values[3] = v.w;
  } else {
    values[0] = valid ? load_readonly(from) : 0.0f;
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

// ---- the main loop -----------------------------------------------------------------------------

// Where a thread's sums lie in the tile, for store_tile(): in rows, and along a row in fours.
template <class T>
struct SimtSums {
  static constexpr int kRows = T::kThreadM, kFours = T::kThreadN / 4;
  __device__ static int row(int i) { return T::row(i); }
  __device__ static int column(int four) { return T::column(4 * four); }
  __device__ static float get(const float (&sums)[T::kThreadM][T::kThreadN], int i, int four,
                              int c) {
    return sums[i][4 * four + c];
  }
};

template <class T, bool kVector>
struct SimtLoop {
  static constexpr int kM = T::kM, kN = T::kN, kThreads = T::kThreads, kStep = kTileK;
  static constexpr int kBlocks = T::blocks(kVector), kSharedBytes = 0;  // the latter: dynamic
  static constexpr bool kCompiled = true, kTakesColumns = false;

  // How the rows of an operand are shared. What is read goes through L1 in any case.
  template <int kRows, class Element = float, bool kThroughL1 = false>
  using AlongK = SimtAlongK<kRows, kThreads, kVector>;
  template <int kRows, class Element = float, bool kThroughL1 = false>
  using AlongRows = SimtAlongRows<kRows, kThreads, kVector>;

  struct Product {
    float sums[T::kThreadM][T::kThreadN];
  };

  // product.sums = the block's tile over the steps [begin, end) along k. also(a) is called with
  // each step's part of A in shared memory: a(row, k).
  template <class A, class B, class Also>
  __device__ static void multiply(A& a, B& b, unsigned begin, unsigned end, Product& product,
                                  Also& also) {
    __shared__ __align__(16) Stage<T> stages[2];
#pragma unroll
    for (int i = 0; i < T::kThreadM; ++i) {
#pragma unroll
      for (int j = 0; j < T::kThreadN; ++j) product.sums[i][j] = 0.0f;
    }
    if (begin == end) return;  // all threads of the block do
    typename A::Registers a_values;
    typename B::Registers b_values;
    const auto fetch = [&](unsigned step) {
      a.each(step * kTileK,
             [&](int load, const auto* from, bool valid) { read(a_values[load], from, valid); });
      b.each(step * kTileK,
             [&](int load, const auto* from, bool valid) { read(b_values[load], from, valid); });
    };
    const auto put = [&](Stage<T>& stage) {
      A::put(a_values, stage.a);
      B::put(b_values, stage.b);
    };
    const auto multiply_stage = [&](const Stage<T>& stage) {
      multiply_step(stage, product.sums);
      also([&](int row, int k) { return stage.a[k][row]; });
    };
    fetch(begin);
    put(stages[0]);
    __syncthreads();
    int buffer = 0;
    for (unsigned step = begin + 1; step < end; ++step) {
      fetch(step);
      multiply_stage(stages[buffer]);
      // The other buffer's last readers have passed the barrier of the step before.
      buffer ^= 1;
      put(stages[buffer]);
      __syncthreads();
    }
    multiply_stage(stages[buffer]);
  }

  // Where the sums of a product of A and B lie.
  template <class A, class B>
  using Sums = SimtSums<T>;
};

}  // namespace convnet
