// Accesses to four floats at once.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace convnet {

// Whether a pointer may be used with load4/store4.
template <typename T>
__device__ __host__ inline bool aligned16(const T* pointer) {
  return (reinterpret_cast<std::uintptr_t>(pointer) & 15) == 0;
}

__device__ inline float4 load4(const float* pointer) {
  return *reinterpret_cast<const float4*>(pointer);
}

// Through the read-only cache: for memory that no thread writes while the kernel runs.
__device__ inline float4 load4_readonly(const float* pointer) {
  return __ldg(reinterpret_cast<const float4*>(pointer));
}

__device__ inline void store4(float* pointer, float4 value) {
  *reinterpret_cast<float4*>(pointer) = value;
}

}  // namespace convnet
