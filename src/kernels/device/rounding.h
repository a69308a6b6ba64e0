// From float32 to bfloat16 and back.
#pragma once

#include <cuda_runtime.h>

#include "bfloat16.h"

namespace convnet {

// Two bf16, each the nearest (halves to even), `low` in the lower 16 bits. A NaN stays one.
__device__ inline unsigned pack_bf16(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#else
  unsigned halves[2] = {__float_as_uint(low), __float_as_uint(high)};
  for (unsigned& bits : halves) {
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    bits = nan ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  }
  return halves[0] | halves[1] << 16;
#endif
}

// The two floats of such a pair, exactly.
__device__ inline float low_bf16(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_bf16(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

// What is left of x where it is stored as a T.
template <class T>
__device__ inline float rounded_to(float x) {
  if constexpr (storage_of<T> == Storage::kBfloat16) return low_bf16(pack_bf16(x, 0.0f));
  return x;
}

}  // namespace convnet
