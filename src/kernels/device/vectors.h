// Accesses to one element and to four at once, which are stored as float32 or bfloat16 and are
// float32 in registers: four are 16 bytes, or 8. Storing rounds to nearest, ties to even.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "rounding.h"

namespace convnet {

template <typename T>
__device__ __host__ inline bool aligned16(const T* pointer) {
  return (reinterpret_cast<std::uintptr_t>(pointer) & 15) == 0;
}

// Whether a pointer may be used with load4/store4.
template <typename T>
__device__ __host__ inline bool aligned4(const T* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % (4 * sizeof(T)) == 0;
}

// What four elements are moved as, whose numbers do not matter.
template <class T>
using FourBits = std::conditional_t<sizeof(T) == 2, uint2, uint4>;

// ---- float32 -----------------------------------------------------------------------------------

__device__ inline float load(const float* pointer) { return *pointer; }

__device__ inline void store(float* pointer, float value) { *pointer = value; }

__device__ inline float4 load4(const float* pointer) {
  return *reinterpret_cast<const float4*>(pointer);
}

// Through the read-only cache: for memory that no thread writes while the kernel runs.
__device__ inline float load_readonly(const float* pointer) { return __ldg(pointer); }

__device__ inline float4 load4_readonly(const float* pointer) {
  return __ldg(reinterpret_cast<const float4*>(pointer));
}

__device__ inline void store4(float* pointer, float4 value) {
  *reinterpret_cast<float4*>(pointer) = value;
}

// ---- bfloat16 ----------------------------------------------------------------------------------

__device__ inline float4 widened(uint2 four) {
  return make_float4(low_bf16(four.x), high_bf16(four.x), low_bf16(four.y), high_bf16(four.y));
}

__device__ inline float load(const Bfloat16* pointer) { return low_bf16(pointer->bits); }

__device__ inline void store(Bfloat16* pointer, float value) {
  pointer->bits = static_cast<std::uint16_t>(pack_bf16(value, 0.0f));
}

__device__ inline float4 load4(const Bfloat16* pointer) {
  return widened(*reinterpret_cast<const uint2*>(pointer));
}

__device__ inline float load_readonly(const Bfloat16* pointer) {
  return low_bf16(__ldg(&pointer->bits));
}

__device__ inline float4 load4_readonly(const Bfloat16* pointer) {
  return widened(__ldg(reinterpret_cast<const uint2*>(pointer)));
}

__device__ inline void store4(Bfloat16* pointer, float4 value) {
  *reinterpret_cast<uint2*>(pointer) =
      make_uint2(pack_bf16(value.x, value.y), pack_bf16(value.z, value.w));
}

}  // namespace convnet
