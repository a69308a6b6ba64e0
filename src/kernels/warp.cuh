// What the 32 lanes of a warp do together, and the sizes of launches.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace convnet {

constexpr int kWarpLanes = 32;
constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kBlockThreads = 256;  // of the kernels that have no reason for another number

// Blocks of `per_block` that cover `count`; count is below 2^31.
inline dim3 blocks_for(std::int64_t count, std::int64_t per_block = kBlockThreads) {
  return dim3(static_cast<unsigned>((count + per_block - 1) / per_block));
}

// The number of this thread in a grid of one dimension: up to 2^31 - 1 + blockDim.x.
__device__ inline unsigned global_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

// combine(...) over the values of all lanes, in every lane. The order of the tree is fixed, and
// since each step combines the same two values in both lanes of a pair, all lanes get the same bits
// wherever combine(a, b) is combine(b, a).
template <class T, class Combine>
__device__ inline T warp_reduce(T value, Combine combine) {
  for (int lanes = kWarpLanes / 2; lanes > 0; lanes /= 2) {
    value = combine(value, __shfl_xor_sync(kFullWarp, value, lanes));
  }
  return value;
}

// The same over the kWarps warps of a block; `partial` is shared memory of kWarps elements.
// Every thread of the block takes part, and may call it again at once with the same memory.
template <int kWarps, class T, class Combine>
__device__ inline T block_reduce(T value, T* partial, Combine combine) {
  value = warp_reduce(value, combine);
  if (threadIdx.x % kWarpLanes == 0) partial[threadIdx.x / kWarpLanes] = value;
  __syncthreads();
  T result = partial[0];
  for (int warp = 1; warp < kWarps; ++warp) result = combine(result, partial[warp]);
  __syncthreads();  // before `partial` is used again
  return result;
}

struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

// Of a number and a NaN, the number.
struct Larger {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

}  // namespace convnet
