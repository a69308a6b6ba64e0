// The products of a warp in mma.cuh, by `kPrecision`:
//   kTf32  operands rounded to 11 bits; mma m16n8k8.
//   kBf16  operands rounded to 8 bits; mma m16n8k16.
//   kFp32  each operand is high + low, two TF32 numbers that hold 23 of its 24 bits, and a product
//          is low high + high low + high high: three mma. Tensor cores round sums towards zero, so
//          these are short: every 16 k they are added to float32 registers ("drained").
#pragma once

#include "kernels/device/mma.h"
#include "ops.h"

namespace convnet {

// The operands of a warp for 8 k, as float32: [eight rows][k = place and place + 4], where the lane
// is 4 group + place and its row in each eight is `group`.
template <int kEights>
using Eights = unsigned[kEights][2];

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
template <class T, Precision kPrecision>
struct WarpProduct;

template <class T>
struct WarpProduct<T, Precision::kTf32> {
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
struct WarpProduct<T, Precision::kBf16> {
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
struct WarpProduct<T, Precision::kFp32> {
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

}  // namespace convnet
