// The main loop on tensor cores (sm_80 and up): a block's tile of C = A B^T by mma.sync.
//
//   C[m, n] = sum_k A[m, k] B[n, k],  A and B float32 in memory, where operands.cuh says
//
// Mapping. A block computes kM x kN of C, a warp kWarpM x kWarpN of it in mma of 16 x 8. Steps of
// 16 k pass through a ring of four stages in shared memory: while one is multiplied, the next three
// are under way by cp.async, which needs no registers. One barrier a step. Fragments are loaded
// 8 k ahead of the mma that takes them, also across the barrier.
//
// Memory is float32, and so are the stages; operands are rounded between shared memory and mma, as
// cp.async cannot convert. Of bfloat16 arrays: mma_bf16.cuh.
//
// Two layouts of a stage, by what is contiguous in global memory. In both, 16-byte pieces are
// permuted by an exclusive or, such that neither cp.async nor the reading of fragments meets a bank
// twice; there are no gaps between rows.
//   AlongK     [row][16 k]: piece k / 4 of a row is at (k / 4) ^ (row / 4 mod 4). Read by ldmatrix,
//              four 8 x 4 matrices at once.
//   AlongRows  [k][row]: piece row / 4 of a k is at (row / 4) ^ (2 (k mod 4)). Read as float4.
// Which row of the tile is which row of an mma is free, as long as A, B and C agree. It is chosen
// so that a lane's sums lie in fours along a row of C: row() and the quads of a layout say which.
#pragma once

#include "epilogue.cuh"
#include "kernels/device/async_copy.h"
#include "kernels/device/mma.h"
#include "kernels/device/vectors.h"
#include "mma_product.cuh"

namespace convnet {

constexpr int kMmaK = 16;      // of a step
constexpr int kMmaStages = 4;  // of the ring

// kBlocks_: blocks at once on a multiprocessor that the registers must allow.
template <int kRows, int kColumns, int kWarpRows, int kWarpColumns, int kBlocks_>
struct MmaTile {
  static constexpr int kM = kRows, kN = kColumns, kWarpM = kWarpRows, kWarpN = kWarpColumns;
  static constexpr int kBlocks = kBlocks_;
  static constexpr int kWarpsN = kN / kWarpN;
  static constexpr int kThreads = 32 * (kM / kWarpM) * kWarpsN;
  static constexpr int kFragmentsM = kWarpM / 16, kFragmentsN = kWarpN / 8;
  static_assert(kM % kWarpM == 0 && kN % kWarpN == 0, "a tile is made of whole warps");
  static_assert(kWarpM % 32 == 0 && kWarpN % 32 == 0, "AlongRows reads 32 rows at once");

  __device__ static int warp_row() { return threadIdx.x / 32 / kWarpsN * kWarpM; }
  __device__ static int warp_column() { return threadIdx.x / 32 % kWarpsN * kWarpN; }
};

// ---- layouts -----------------------------------------------------------------------------------

// A lane's sums of C lie in quads of four neighbouring columns. Element c of quad q is element
// quad_element(q, c) of mma column-eight quad_eight(q, c).

template <int kRows>
struct MmaAlongK {
  // Where element (row, k) of a step lies.
  __device__ static int offset(int row, int k) {
    return row * kMmaK + 4 * ((k / 4) ^ (row / 4 & 3)) + k % 4;
  }
  __device__ static float get(const float* stage, int row, int k) { return stage[offset(row, k)]; }
  static constexpr bool kExchanges = false;  // sums, between lanes, before they lie in fours
  // The tile's row that is row r of an eight.
  __device__ static int row(int eight, int r) {
    return eight / 2 * 16 + r / 2 * 4 + eight % 2 * 2 + r % 2;
  }
  __device__ static int quad_column(int quad, int place) { return 16 * quad + 4 * place; }
  __device__ static int quad_eight(int quad, int c) { return 2 * quad + c / 2; }
  __device__ static int quad_element(int, int c) { return c % 2; }

  // Rows from `first_row` on, k from 8 `half` on.
  template <int kEights>
  __device__ static void load(const float* stage, int first_row, int half,
                              Eights<kEights>& values) {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    const float* rows =
        stage + offset(first_row + row(matrix % 2, lane % 8), 8 * half + matrix / 2 * 4);
#pragma unroll
    for (int eight = 0; eight < kEights; eight += 2) {
      unsigned registers[4];
      ldmatrix(registers, rows + eight / 2 * 16 * kMmaK);
      values[eight][0] = registers[0];
      values[eight + 1][0] = registers[1];
      values[eight][1] = registers[2];
      values[eight + 1][1] = registers[3];
    }
  }
};

template <int kRows>
struct MmaAlongRows {
  static_assert(kRows % 32 == 0, "pieces are permuted within 32 rows");
  __device__ static int offset(int row, int k) {
    return k * kRows + 4 * ((row / 4) ^ (2 * (k & 3))) + row % 4;
  }
  __device__ static float get(const float* stage, int row, int k) { return stage[offset(row, k)]; }
  static constexpr bool kExchanges = false;
  __device__ static int row(int eight, int r) { return eight / 4 * 32 + 4 * r + eight % 4; }
  __device__ static int quad_column(int quad, int place) {
    return quad / 2 * 32 + 8 * place + quad % 2 * 4;
  }
  __device__ static int quad_eight(int quad, int c) { return quad / 2 * 4 + c; }
  __device__ static int quad_element(int quad, int) { return quad % 2; }

  template <int kEights>
  __device__ static void load(const float* stage, int first_row, int half,
                              Eights<kEights>& values) {
    const int lane = threadIdx.x % 32, group = lane / 4, place = lane % 4;
    const float* pieces = stage + offset(first_row + 4 * group, 8 * half + place);
#pragma unroll
    for (int eight = 0; eight < kEights; eight += 4) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float4 four = load4(pieces + 4 * i * kRows + eight * 8);
        values[eight][i] = __float_as_uint(four.x);
        values[eight + 1][i] = __float_as_uint(four.y);
        values[eight + 2][i] = __float_as_uint(four.z);
        values[eight + 3][i] = __float_as_uint(four.w);
      }
    }
  }
};

// ---- how the threads of a block share the copying of kRows x kMmaK elements --------------------

// For memory that is contiguous along k: a thread copies 4 (or 1) successive k of kLoads rows.
template <int kRows, int kThreads, bool kVector, bool kThroughL1 = false>
struct CopyAlongK {
  static constexpr int kStep = kMmaK;
  using Layout = MmaAlongK<kRows>;
  static constexpr int kWidth = kVector ? 4 : 1;
  static constexpr int kThreadsPerRow = kMmaK / kWidth, kRowsAtOnce = kThreads / kThreadsPerRow;
  static constexpr int kLoads = (kRows + kRowsAtOnce - 1) / kRowsAtOnce;

  __device__ static int k() { return threadIdx.x % kThreadsPerRow * kWidth; }
  __device__ static int row(int load) { return threadIdx.x / kThreadsPerRow + load * kRowsAtOnce; }
  __device__ static void copy(float* stage, int load, const float* source, bool valid) {
    if (kRows % kRowsAtOnce != 0 && row(load) >= kRows) return;
    // The permutation repeats every 16 rows.
    const int offset = kRowsAtOnce % 16 == 0
                           ? Layout::offset(row(0), k()) + load * kRowsAtOnce * kMmaK
                           : Layout::offset(row(load), k());
    cp_async<4 * kWidth, kThroughL1>(stage + offset, source, valid);
  }
};

// For memory that is contiguous along the tile: a thread copies pieces of 4 (or 1) rows at one k.
template <int kRows, int kThreads, bool kVector, bool kThroughL1 = false>
struct CopyAlongRows {
  static constexpr int kStep = kMmaK;
  using Layout = MmaAlongRows<kRows>;
  static constexpr int kWidth = kVector ? 4 : 1;
  static constexpr int kThreadsPerK = kThreads / kMmaK, kRowsAtOnce = kThreadsPerK * kWidth;
  static constexpr int kLoads = (kRows + kRowsAtOnce - 1) / kRowsAtOnce;

  __device__ static int k() { return threadIdx.x / kThreadsPerK; }
  __device__ static int row(int load) {
    return threadIdx.x % kThreadsPerK * kWidth + load * kRowsAtOnce;
  }
  __device__ static void copy(float* stage, int load, const float* source, bool valid) {
    if (kRows % kRowsAtOnce != 0 && row(load) >= kRows) return;
    // The permutation repeats every 32 rows.
    const int offset = kRowsAtOnce % 32 == 0 ? Layout::offset(row(0), k()) + load * kRowsAtOnce
                                             : Layout::offset(row(load), k());
    cp_async<4 * kWidth, kThroughL1>(stage + offset, source, valid);
  }
};

// ---- the main loop -----------------------------------------------------------------------------

// Where a lane's sums lie in the tile, for store_tile(): rows by eights, and along a row in fours.
template <class T, class LayoutA, class LayoutB>
struct MmaSumsMap {
  static constexpr int kRows = 2 * T::kFragmentsM, kFours = T::kFragmentsN / 2;
  __device__ static int row(int eight) {
    return T::warp_row() + LayoutA::row(eight, threadIdx.x % 32 / 4);
  }
  __device__ static int column(int quad) {
    return T::warp_column() + LayoutB::quad_column(quad, threadIdx.x % 4);
  }
  __device__ static float get(const MmaSums<T>& sums, int eight, int quad, int c) {
    return sums[eight / 2][LayoutB::quad_eight(quad, c)]
               [eight % 2 * 2 + LayoutB::quad_element(quad, c)];
  }
};

// product.sums = the warp's part of the block's tile over the steps [begin, end) along k. also(a) is
// called with each step's part of A in shared memory: a(row, k).
template <class Loop, class T, class A, class B, class Also>
__device__ inline void multiply_by_ring(A& a, B& b, unsigned begin, unsigned end,
                                        typename Loop::Product& product, Also& also) {
  constexpr int kStages = Loop::kStages, kB = T::kM * 16;  // the latter: where B begins in a stage
  extern __shared__ __align__(128) unsigned char shared[];
  float* const ring = reinterpret_cast<float*>(shared);
  product.begin();
  if (begin == end) return;  // all threads of the block do
  const auto copy = [&](unsigned slot, unsigned step) {
    float* stage = ring + slot * Loop::kStageFloats;
    a.each(step * Loop::kStep,
           [&](int load, const auto* from, bool valid) { A::copy(stage, load, from, valid); });
    b.each(step * Loop::kStep,
           [&](int load, const auto* from, bool valid) { B::copy(stage + kB, load, from, valid); });
  };
  const auto load = [&](unsigned slot, int half, Operands<T>& operands) {
    const float* stage = ring + slot * Loop::kStageFloats;
    A::Layout::load(stage, T::warp_row(), half, operands.a);
    B::Layout::load(stage + kB, T::warp_column(), half, operands.b);
  };
  for (unsigned i = 0; i < kStages - 1; ++i) {
    if (begin + i < end) copy(i, begin + i);
    cp_async_commit();  // also where there is nothing, so that the counts below are right
  }
  cp_async_wait<kStages - 2>();
  __syncthreads();
  Operands<T> first, second;
  load(0, 0, first);
  unsigned slot = 0;
  for (unsigned step = begin; step < end; ++step) {
    // To the stage of the step before, whose last readers have passed that step's barrier.
    if (step + kStages - 1 < end) copy((slot + kStages - 1) % kStages, step + kStages - 1);
    cp_async_commit();
    load(slot, 1, second);  // after the addresses of the copies have given up their registers
    product.first(first, second);
    also([&](int row, int k) { return A::Layout::get(ring + slot * Loop::kStageFloats, row, k); });
    // The next step has arrived when all groups but the newest kStages - 2 have.
    cp_async_wait<kStages - 2>();
    __syncthreads();
    slot = (slot + 1) % kStages;
    if (step + 1 < end) load(slot, 0, first);
    product.second(second);
  }
}

template <class T, Precision kPrecision, bool kVector>
struct MmaLoop {
  static constexpr int kM = T::kM, kN = T::kN, kThreads = T::kThreads, kStep = kMmaK;
  static constexpr int kBlocks = T::kBlocks, kStages = kMmaStages;
  static constexpr int kStageFloats = (kM + kN) * kMmaK, kSharedBytes = kStages * kStageFloats * 4;
  static constexpr bool kCompiled = kCompiledForMma, kTakesColumns = true;

  // How the rows of an operand are shared.
  template <int kRows, class Element, bool kThroughL1 = false>
  using AlongK = CopyAlongK<kRows, kThreads, kVector, kThroughL1>;
  template <int kRows, class Element, bool kThroughL1 = false>
  using AlongRows = CopyAlongRows<kRows, kThreads, kVector, kThroughL1>;

  using Product = WarpProduct<T, kPrecision>;

  template <class A, class B, class Also>
  __device__ static void multiply(A& a, B& b, unsigned begin, unsigned end, Product& product,
                                  Also& also) {
    multiply_by_ring<MmaLoop, T>(a, b, begin, end, product, also);
  }

  // Where the sums of a product of A and B lie.
  template <class A, class B>
  using Sums = MmaSumsMap<T, typename A::Layout, typename B::Layout>;
};

}  // namespace convnet
