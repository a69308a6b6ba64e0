// The main loop on tensor cores for activations that are stored as bfloat16, in precision bf16.
//
//   C[m, n] = sum_k A[m, k] B[n, k],  A bfloat16 in memory; B bfloat16, too (wgrad), or float32
//                                     (filters, in fprop and dgrad)
//
// As mma.cuh, with steps of 32 k: two mma of 16 k. What is bfloat16 goes from memory to the mma as
// it is: by cp.async, 8 elements in 16 bytes (or 4 in 8 where channels are no multiple of 8, as by
// columns), and by ldmatrix. Filters stay float32 as far as shared memory and are rounded when they
// are read from there: a rounded copy of them would cost dense layers, which memory limits, more
// than it saves.
//
// Layouts of a stage, where a piece is 16 bytes. k is in its natural order: a register of an operand
// has k = 2 place and 2 place + 1 of an eight of k, so bfloat16 pairs are whole words.
//   bfloat16, [row][32 k]  MmaAlongK of words, each a pair.
//   bfloat16, [k][row]     PackedAlongRows: pieces are permuted by k; ldmatrix transposes.
//   float32, [row][32 k]   PairedAlongK: eights of a row are permuted; read as float2.
//   float32, [k][row]      PairedAlongRows: as MmaAlongRows, permuted by k / 2; read as float4.
#pragma once

#include "mma.cuh"

namespace convnet {

constexpr int kBf16Step = 32;   // k
constexpr int kBf16Stages = 3;  // as many bytes of shared memory as the four of mma.cuh, or fewer

// ---- layouts -----------------------------------------------------------------------------------

template <int kRows>
struct PackedAlongRows {
  // Where pieces of a k lie that are the same eight of rows: eight successive k in different banks.
  __device__ static int permuted(int k) { return kRows % 64 == 0 ? k & 7 : k / 2 & 3; }
  // In bytes.
  __device__ static int offset(int row, int k) {
    return k * kRows * 2 + 16 * ((row / 8) ^ permuted(k)) + row % 8 * 2;
  }
  __device__ static float get(const float* stage, int row, int k) {
    const auto* at = reinterpret_cast<const unsigned char*>(stage) + offset(row, k);
    return low_bf16(reinterpret_cast<const Bfloat16*>(at)->bits);
  }
  __device__ static int row(int eight, int r) { return 8 * eight + r; }
  // Once lanes have exchanged sums: exchange_pairs().
  static constexpr bool kExchanges = true;
  __device__ static int quad_column(int quad, int place) {
    return 16 * quad + place % 2 * 8 + place / 2 * 4;
  }
  __device__ static int quad_eight(int quad, int c) { return 2 * quad + c / 2; }
  __device__ static int quad_element(int, int c) { return c % 2; }

  // Rows from `first_row` on, a multiple of those of a warp; k from 16 `half` on.
  template <int kEights>
  __device__ static void load(const float* stage, int first_row, int half,
                              Eights<kEights>& values) {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    const auto* at = reinterpret_cast<const unsigned char*>(stage) +
                     offset(first_row + matrix / 2 * 8, 16 * half + matrix % 2 * 8 + lane % 8);
    const unsigned first = static_cast<unsigned>(__cvta_generic_to_shared(at));
#pragma unroll
    for (int eight = 0; eight < kEights; eight += 2) {
      unsigned registers[4];
      ldmatrix<4, true>(registers, first ^ (eight * 16));
      values[eight][0] = registers[0];
      values[eight][1] = registers[1];
      values[eight + 1][0] = registers[2];
      values[eight + 1][1] = registers[3];
    }
  }
};

template <int kRows>
struct PairedAlongK : MmaAlongK<kRows> {
  using Base = MmaAlongK<kRows>;
  __device__ static int offset(int row, int k) {
    return row * kBf16Step + 8 * ((k / 8) ^ ((row & 1) | (row >> 1 & 2))) + k % 8;
  }
  template <int kEights>
  __device__ static void load(const float* stage, int first_row, int half,
                              Eights<kEights>& values) {
    const int lane = threadIdx.x % 32, group = lane / 4, place = lane % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float* first =
          stage + offset(first_row + Base::row(0, group), 16 * half + 8 * i + 2 * place);
#pragma unroll
      for (int eight = 0; eight < kEights; ++eight) {
        const float2 pair =
            *reinterpret_cast<const float2*>(first + Base::row(eight, 0) * kBf16Step);
        values[eight][i] = pack_bf16(pair.x, pair.y);
      }
    }
  }
};

template <int kRows>
struct PairedAlongRows : MmaAlongRows<kRows> {
  __device__ static int offset(int row, int k) {
    return k * kRows + 4 * ((row / 4) ^ (2 * (k / 2 & 3))) + row % 4;
  }
  template <int kEights>
  __device__ static void load(const float* stage, int first_row, int half,
                              Eights<kEights>& values) {
    const int lane = threadIdx.x % 32, group = lane / 4, place = lane % 4;
    const float* first = stage + offset(first_row + 4 * group, 16 * half + 2 * place);
#pragma unroll
    for (int eight = 0; eight < kEights; eight += 4) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float* at = first + 8 * i * kRows + eight * 8;
        const float4 even = load4(at), odd = load4(at + kRows);
        values[eight][i] = pack_bf16(even.x, odd.x);
        values[eight + 1][i] = pack_bf16(even.y, odd.y);
        values[eight + 2][i] = pack_bf16(even.z, odd.z);
        values[eight + 3][i] = pack_bf16(even.w, odd.w);
      }
    }
  }
};

// ---- how the threads of a block share the copying of kRows x 32 elements -----------------------

template <int kRows, int kThreads, bool kWide, bool kThroughL1>
struct CopyPackedAlongK {
  static constexpr int kStep = kBf16Step;
  using Layout = MmaAlongK<kRows>;
  static constexpr int kWidth = kWide ? 8 : 4;
  static constexpr int kThreadsPerRow = kStep / kWidth, kRowsAtOnce = kThreads / kThreadsPerRow;
  static constexpr int kLoads = (kRows + kRowsAtOnce - 1) / kRowsAtOnce;

  __device__ static int k() { return threadIdx.x % kThreadsPerRow * kWidth; }
  __device__ static int row(int load) { return threadIdx.x / kThreadsPerRow + load * kRowsAtOnce; }
  __device__ static void copy(float* stage, int load, const Bfloat16* source, bool valid) {
    if (kRows % kRowsAtOnce != 0 && row(load) >= kRows) return;
    cp_async<2 * kWidth, kThroughL1>(stage + Layout::offset(row(load), k() / 2), source, valid);
  }
};

template <int kRows, int kThreads, bool kWide, bool kThroughL1>
struct CopyPackedAlongRows {
  static constexpr int kStep = kBf16Step;
  using Layout = PackedAlongRows<kRows>;
  static constexpr int kWidth = kWide ? 8 : 4;
  static constexpr int kThreadsPerK = kThreads / kStep, kRowsAtOnce = kThreadsPerK * kWidth;
  static constexpr int kLoads = (kRows + kRowsAtOnce - 1) / kRowsAtOnce;

  __device__ static int k() { return threadIdx.x / kThreadsPerK; }
  __device__ static int row(int load) {
    return threadIdx.x % kThreadsPerK * kWidth + load * kRowsAtOnce;
  }
  __device__ static void copy(float* stage, int load, const Bfloat16* source, bool valid) {
    if (kRows % kRowsAtOnce != 0 && row(load) >= kRows) return;
    cp_async<2 * kWidth, kThroughL1>(
        reinterpret_cast<unsigned char*>(stage) + Layout::offset(row(load), k()), source, valid);
  }
};

// Filters: 16 bytes whatever the width of the others, as their rows are multiples of it.
template <int kRows, int kThreads>
struct CopyPairedAlongK {
  static constexpr int kStep = kBf16Step;
  using Layout = PairedAlongK<kRows>;
  static constexpr int kThreadsPerRow = kStep / 4, kRowsAtOnce = kThreads / kThreadsPerRow;
  static constexpr int kLoads = (kRows + kRowsAtOnce - 1) / kRowsAtOnce;

  __device__ static int k() { return threadIdx.x % kThreadsPerRow * 4; }
  __device__ static int row(int load) { return threadIdx.x / kThreadsPerRow + load * kRowsAtOnce; }
  __device__ static void copy(float* stage, int load, const float* source, bool valid) {
    if (kRows % kRowsAtOnce != 0 && row(load) >= kRows) return;
    cp_async<16>(stage + Layout::offset(row(load), k()), source, valid);
  }
};

template <int kRows, int kThreads>
struct CopyPairedAlongRows {
  static constexpr int kStep = kBf16Step;
  using Layout = PairedAlongRows<kRows>;
  static constexpr int kThreadsPerK = kThreads / kStep, kRowsAtOnce = kThreadsPerK * 4;
  static constexpr int kLoads = (kRows + kRowsAtOnce - 1) / kRowsAtOnce;

  __device__ static int k() { return threadIdx.x / kThreadsPerK; }
  __device__ static int row(int load) {
    return threadIdx.x % kThreadsPerK * 4 + load * kRowsAtOnce;
  }
  __device__ static void copy(float* stage, int load, const float* source, bool valid) {
    if (kRows % kRowsAtOnce != 0 && row(load) >= kRows) return;
    cp_async<16>(stage + Layout::offset(row(load), k()), source, valid);
  }
};

// ---- the main loop -----------------------------------------------------------------------------

template <class T>
struct PackedProduct {
  MmaSums<T> sums;

  __device__ void begin() { clear<T>(sums); }
  __device__ void first(const Operands<T>& half, const Operands<T>&) { multiply(half); }
  __device__ void second(const Operands<T>& half) { multiply(half); }

 private:
  __device__ void multiply(const Operands<T>& half) {
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) {
      const unsigned a[4] = {half.a[2 * i][0], half.a[2 * i + 1][0], half.a[2 * i][1],
                             half.a[2 * i + 1][1]};
#pragma unroll
      for (int j = 0; j < T::kFragmentsN; ++j) mma_m16n8k16_bf16(sums[i][j], a, half.b[j]);
    }
  }
};

// Of two neighbouring eights of columns a lane has two in each: the even lane of a pair takes four
// of the first, the odd one four of the second.
template <class T>
__device__ inline void exchange_pairs(MmaSums<T>& sums) {
  const bool odd = threadIdx.x % 2 != 0;
#pragma unroll
  for (int i = 0; i < T::kFragmentsM; ++i) {
#pragma unroll
    for (int j = 0; j < T::kFragmentsN; j += 2) {
#pragma unroll
      for (int l = 0; l < 4; ++l) {
        const float sent = odd ? sums[i][j][l] : sums[i][j + 1][l];
        const float got = __shfl_xor_sync(0xffffffffu, sent, 1);
        if (odd) {
          sums[i][j][l] = got;
        } else {
          sums[i][j + 1][l] = got;
        }
      }
    }
  }
}

// kWide: bfloat16 is copied 8 elements at a time, else 4. kFilters: B is float32.
template <class T, bool kWide, bool kFilters>
struct MmaBf16Loop {
  static constexpr int kM = T::kM, kN = T::kN, kThreads = T::kThreads, kStep = kBf16Step;
  static constexpr int kBlocks = T::kBlocks, kStages = kBf16Stages;
  static constexpr int kStageFloats = kM * 16 + kN * (kFilters ? 32 : 16);
  static constexpr int kSharedBytes = kStages * kStageFloats * 4;
  static constexpr bool kCompiled = kCompiledForMma, kTakesColumns = true;

  template <int kRows, class Element, bool kThroughL1 = false>
  using AlongK =
      std::conditional_t<std::is_same_v<Element, float>, CopyPairedAlongK<kRows, kThreads>,
                         CopyPackedAlongK<kRows, kThreads, kWide, kThroughL1>>;
  template <int kRows, class Element, bool kThroughL1 = false>
  using AlongRows =
      std::conditional_t<std::is_same_v<Element, float>, CopyPairedAlongRows<kRows, kThreads>,
                         CopyPackedAlongRows<kRows, kThreads, kWide, kThroughL1>>;

  using Product = PackedProduct<T>;

  template <class A, class B, class Also>
  __device__ static void multiply(A& a, B& b, unsigned begin, unsigned end, Product& product,
                                  Also& also) {
    multiply_by_ring<MmaBf16Loop, T>(a, b, begin, end, product, also);
    if constexpr (B::Layout::kExchanges) exchange_pairs<T>(product.sums);
  }

  template <class A, class B>
  using Sums = MmaSumsMap<T, typename A::Layout, typename B::Layout>;
};

}  // namespace convnet
