// The product behind mma_*.cu: a block's tile of C = A B^T on tensor cores (sm_80 and up).
//
//   C[m, n] = sum_k A[m, k] B[n, k],  A and B float32 in memory
//
// How products are formed is `kMath`:
//   kTf32  operands rounded to 11 bits; mma m16n8k8.
//   kBf16  operands rounded to 8 bits; mma m16n8k16.
//   kFp32  each operand is high + low, two TF32 numbers that hold 23 of its 24 bits, and a product
//   is
//          low high + high low + high high: three mma. Tensor cores round sums towards zero, so
//          these are short: every 16 k they are added to float32 registers ("drained").
//
// Mapping. A block computes kM x kN of C, a warp kWarpM x kWarpN of it in mma of 16 x 8. Steps of
// 16 k pass through a ring of four stages in shared memory: while one is multiplied, the next three
// are under way by cp.async, which needs no registers. One barrier a step. Fragments are loaded
// 8 k ahead of the mma that takes them, also across the barrier.
//
// Memory is float32, and so are the stages; operands are rounded between shared memory and mma. To
// store stages as bf16 would halve what shared memory moves, but cp.async cannot convert, so every
// element would pass through registers; and the float32 that arrives from L2 is the narrower pipe
// for bf16 (docs/kernels.md), so nothing would be won.
//
// Two layouts of a stage, by what is contiguous in global memory. In both, 16-byte pieces are
// permuted by an exclusive or, such that neither cp.async nor the reading of fragments meets a bank
// twice; there are no gaps between rows.
//   AlongK     [row][16 k]: piece k / 4 of a row is at (k / 4) ^ (row / 4 mod 4). Read by ldmatrix,
//              four 8 x 4 matrices at once.
//   AlongRows  [k][row]: piece row / 4 of a k is at (row / 4) ^ (2 (k mod 4)). Read as float4.
// Which row of the tile is which row of an mma is free, as long as A, B and C agree. It is chosen
// so that a lane's sums lie in fours along a row of C: eights() below says where.
#pragma once

#include "device/async_copy.h"
#include "device/mma.h"
#include "device/vectors.h"
#include "epilogue.cuh"
#include "ops.h"

namespace convnet {

constexpr int kMmaK = 16;   // of a step
constexpr int kStages = 4;  // of the ring

// kBlocks_: blocks at once on a multiprocessor that the registers must allow.
template <int kRows, int kColumns, int kWarpRows, int kWarpColumns, int kBlocks_>
struct MmaTile {
  static constexpr int kM = kRows, kN = kColumns, kWarpM = kWarpRows, kWarpN = kWarpColumns;
  static constexpr int kBlocks = kBlocks_;
  static constexpr int kWarpsN = kN / kWarpN;
  static constexpr int kThreads = 32 * (kM / kWarpM) * kWarpsN;
  static constexpr int kFragmentsM = kWarpM / 16, kFragmentsN = kWarpN / 8;
  static constexpr int kStageFloats = (kM + kN) * kMmaK;
  static constexpr int kSharedBytes = kStages * kStageFloats * 4;
  static_assert(kM % kWarpM == 0 && kN % kWarpN == 0, "a tile is made of whole warps");
  static_assert(kWarpM % 32 == 0 && kWarpN % 32 == 0, "AlongRows reads 32 rows at once");

  __device__ static int warp_row() { return threadIdx.x / 32 / kWarpsN * kWarpM; }
  __device__ static int warp_column() { return threadIdx.x / 32 % kWarpsN * kWarpN; }
};

// The operands of a warp for 8 k, as float32: [eight rows][k = place and place + 4], where the lane
// is 4 group + place and its row in each eight is `group`.
template <int kEights>
using Eights = unsigned[kEights][2];

// ---- layouts -----------------------------------------------------------------------------------

// A lane's sums of C lie in quads of four neighbouring columns. Element c of quad q is element
// quad_element(q, c) of mma column-eight quad_eight(q, c).

template <int kRows>
struct MmaAlongK {
  // Where element (row, k) of a step lies.
  __device__ static int offset(int row, int k) {
    return row * kMmaK + 4 * ((k / 4) ^ (row / 4 & 3)) + k % 4;
  }
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

// ---- products of a warp ------------------------------------------------------------------------

template <class T>
struct Operands {
  Eights<2 * T::kFragmentsM> a;
  Eights<T::kFragmentsN> b;
};

template <class T>
using MmaSums = float[T::kFragmentsM][T::kFragmentsN][4];

template <class T>
__device__ inline void clear(MmaSums<T>& sums) {
#pragma unroll
  for (int i = 0; i < T::kFragmentsM; ++i) {
#pragma unroll
    for (int j = 0; j < T::kFragmentsN; ++j) {
#pragma unroll
      for (int l = 0; l < 4; ++l) sums[i][j][l] = 0.0f;
    }
  }
}

// A float as the mma wants it for TF32: rounded to 11 significant bits, halves away from zero, in
// the bits that the mma does not ignore; denormal numbers are cut off. cvt.rna.tf32 takes three
// instructions for it, two of them at half rate. Half a unit is 2^-11 of x with no mantissa; added
// as a number, not to the bits, it leaves infinity and NaN what they are.
__device__ inline unsigned rounded_to_tf32(unsigned x) {
  const float power = __uint_as_float(x & 0xff800000u);
  return __float_as_uint(__uint_as_float(x) + 0x1p-11f * power);
}

// A step is two halves of 8 k. first() may use both, second() the later one only: by then the
// operands of the next step are on their way into the registers of the earlier one. After the last
// step `sums` is the product.
template <class T, Math kMath>
struct WarpProduct;

template <class T>
struct WarpProduct<T, Math::kTf32> {
  MmaSums<T> sums;

  __device__ void begin() { clear<T>(sums); }
  __device__ void first(const Operands<T>& half, const Operands<T>&) { multiply(half); }
  __device__ void second(const Operands<T>& half) { multiply(half); }

 private:
  __device__ void multiply(const Operands<T>& half) {
    unsigned a[T::kFragmentsM][4];
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) {
#pragma unroll
      for (int l = 0; l < 4; ++l) a[i][l] = rounded_to_tf32(half.a[2 * i + l % 2][l / 2]);
    }
#pragma unroll
    for (int j = 0; j < T::kFragmentsN; ++j) {
      const unsigned b[2] = {rounded_to_tf32(half.b[j][0]), rounded_to_tf32(half.b[j][1])};
#pragma unroll
      for (int i = 0; i < T::kFragmentsM; ++i) mma_m16n8k8_tf32(sums[i][j], a[i], b);
    }
  }
};

// The 16 k of an mma are those of the step in another order, (0, 4, 1, 5 ... 8, 12 ...), in A and B
// alike: so a lane packs what it has loaded.
template <class T>
struct WarpProduct<T, Math::kBf16> {
  MmaSums<T> sums;

  __device__ void begin() { clear<T>(sums); }
  __device__ void first(const Operands<T>& one, const Operands<T>& other) {
    pack(one, 0);
    pack(other, 1);
  }
  __device__ void second(const Operands<T>&) {
#pragma unroll
    for (int j = 0; j < T::kFragmentsN; ++j) {
#pragma unroll
      for (int i = 0; i < T::kFragmentsM; ++i) mma_m16n8k16_bf16(sums[i][j], a_[i], b_[j]);
    }
  }

 private:
  unsigned a_[T::kFragmentsM][4], b_[T::kFragmentsN][2];

  __device__ static unsigned packed(const unsigned (&pair)[2]) {
    return pack_bf16(__uint_as_float(pair[0]), __uint_as_float(pair[1]));
  }
  __device__ void pack(const Operands<T>& half, int which) {
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) {
      a_[i][2 * which] = packed(half.a[2 * i]);
      a_[i][2 * which + 1] = packed(half.a[2 * i + 1]);
    }
#pragma unroll
    for (int j = 0; j < T::kFragmentsN; ++j) b_[j][which] = packed(half.b[j]);
  }
};

// x = high + low to 23 bits, as TF32. Where the sum is not finite, `ones` is NaN: all bits but the
// sign (on a CPU those of the sum at least). high is then 1.5 to 2, of x's sign, and infinity and
// NaN are in low alone: an infinite high part would meet the low part of the other operand, which
// is 0 or of any sign. 0x1fff is a denormal number: nvcc's -ftz=true, which nothing here sets,
// would break this.
__device__ inline unsigned high_part(unsigned x) {
  const unsigned sum = x + 0x1000u;
  const float none = 0.0f * __uint_as_float(sum);
  const unsigned ones = __float_as_uint(none + __uint_as_float(0x1fffu));
  return (sum & ~ones) ^ (ones & 0xbfffe000u);
}
__device__ inline unsigned low_part(unsigned x) {
  return __float_as_uint(__uint_as_float(x) - __uint_as_float(high_part(x)));
}

// Sums of 16 k begin with the small products, low high and high low, of both halves: of the six
// roundings towards zero that a step has, only the last two are of a full-sized sum.
template <class T>
struct WarpProduct<T, Math::kFp32> {
  MmaSums<T> sums;

  __device__ void begin() {
    clear<T>(sums);
    clear<T>(step_sums_);
  }
  __device__ void first(const Operands<T>& one, const Operands<T>& other) {
    multiply_small(one);
    multiply_small(other);
    multiply_high(one);
  }
  __device__ void second(const Operands<T>& other) {
    multiply_high(other);
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) {
#pragma unroll
      for (int j = 0; j < T::kFragmentsN; ++j) {
#pragma unroll
        for (int l = 0; l < 4; ++l) sums[i][j][l] += step_sums_[i][j][l];
      }
    }
    clear<T>(step_sums_);
  }

 private:
  MmaSums<T> step_sums_;

  __device__ void multiply_small(const Operands<T>& half) {
    unsigned high[T::kFragmentsM][4], low[T::kFragmentsM][4];
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) {
#pragma unroll
      for (int l = 0; l < 4; ++l) {
        high[i][l] = high_part(half.a[2 * i + l % 2][l / 2]);
        low[i][l] = low_part(half.a[2 * i + l % 2][l / 2]);
      }
    }
#pragma unroll
    for (int j = 0; j < T::kFragmentsN; ++j) {
      const unsigned b_high[2] = {high_part(half.b[j][0]), high_part(half.b[j][1])};
      const unsigned b_low[2] = {low_part(half.b[j][0]), low_part(half.b[j][1])};
#pragma unroll
      for (int i = 0; i < T::kFragmentsM; ++i) mma_m16n8k8_tf32(step_sums_[i][j], low[i], b_high);
#pragma unroll
      for (int i = 0; i < T::kFragmentsM; ++i) mma_m16n8k8_tf32(step_sums_[i][j], high[i], b_low);
    }
  }

  __device__ void multiply_high(const Operands<T>& half) {
    unsigned high[T::kFragmentsM][4];
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) {
#pragma unroll
      for (int l = 0; l < 4; ++l) high[i][l] = high_part(half.a[2 * i + l % 2][l / 2]);
    }
#pragma unroll
    for (int j = 0; j < T::kFragmentsN; ++j) {
      const unsigned b_high[2] = {high_part(half.b[j][0]), high_part(half.b[j][1])};
#pragma unroll
      for (int i = 0; i < T::kFragmentsM; ++i) mma_m16n8k8_tf32(step_sums_[i][j], high[i], b_high);
    }
  }
};

// ---- the product of a block --------------------------------------------------------------------

// For mma_multiply(): nothing else to do with a step.
struct OnlyMma {
  __device__ void operator()(const float*) {}
};

// product.sums = the warp's part of the block's tile over the steps [begin, end) along k. CopyA and
// CopyB are sources: copy(stage, k) starts the copies of their elements k ... k + 15. `also(stage)`
// is called with each step's part of A, laid out as CopyA::Layout says.
template <class T, class CopyA, class CopyB, class Product, class Also>
__device__ inline void mma_multiply(CopyA& a, CopyB& b, unsigned begin, unsigned end,
                                    Product& product, Also& also) {
  extern __shared__ __align__(128) unsigned char shared[];
  float* const ring = reinterpret_cast<float*>(shared);
  product.begin();
  if (begin == end) return;  // all threads of the block do
  const auto copy = [&](unsigned slot, unsigned step) {
    float* stage = ring + slot * T::kStageFloats;
    a.copy(stage, step * kMmaK);
    b.copy(stage + T::kM * kMmaK, step * kMmaK);
  };
  const auto load = [&](unsigned slot, int half, Operands<T>& operands) {
    const float* stage = ring + slot * T::kStageFloats;
    CopyA::Layout::load(stage, T::warp_row(), half, operands.a);
    CopyB::Layout::load(stage + T::kM * kMmaK, T::warp_column(), half, operands.b);
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
    also(ring + slot * T::kStageFloats);
    // The next step has arrived when all groups but the newest kStages - 2 have.
    cp_async_wait<kStages - 2>();
    __syncthreads();
    slot = (slot + 1) % kStages;
    if (step + 1 < end) load(slot, 0, first);
    product.second(second);
  }
}

// ---- to memory ---------------------------------------------------------------------------------

// The columns of C are those of the result.
struct SameColumns {
  unsigned columns;
  __device__ bool valid(unsigned column) const { return column < columns; }
  __device__ unsigned offset(unsigned column) const { return column; }
};

// Stores the tile as store_tile() of epilogue.cuh does: element (row, column) goes to
// out[start(row) + columns.offset(column)], where row < rows and columns.valid(column).
template <class T, class LayoutA, class LayoutB, class RowStart, class Columns,
          class Become = StoreResult>
__device__ inline void store_mma_tile(const MmaSums<T>& sums, const Output& output, RowStart start,
                                      Columns columns, Become become = {}) {
  const int group = threadIdx.x % 32 / 4, place = threadIdx.x % 4;
#pragma unroll
  for (int eight = 0; eight < 2 * T::kFragmentsM; ++eight) {
    const unsigned row = output.first_row + T::warp_row() + LayoutA::row(eight, group);
    if (row >= output.rows) continue;
    const unsigned row_start = start(row);
#pragma unroll
    for (int quad = 0; quad < T::kFragmentsN / 2; ++quad) {
      const unsigned column =
          output.first_column + T::warp_column() + LayoutB::quad_column(quad, place);
      const auto finished = [&](int c) {
        const float sum = sums[eight / 2][LayoutB::quad_eight(quad, c)]
                              [eight % 2 * 2 + LayoutB::quad_element(quad, c)];
        const unsigned offset = columns.offset(column + c);
        return finish(sum, output.epilogue, output.first_channel + offset, row_start + offset);
      };
      if (output.vector) {
        if (!columns.valid(column)) continue;
        become(output.out, row_start + columns.offset(column),
               make_float4(finished(0), finished(1), finished(2), finished(3)));
      } else {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if (columns.valid(column + c)) {
            become(output.out, row_start + columns.offset(column + c), finished(c));
          }
        }
      }
    }
  }
}

}  // namespace convnet
