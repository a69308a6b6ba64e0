// Copies from global to shared memory that need no registers and go on while the thread does:
// sm_80.
//
// A thread's copies since its last commit form a group; cp_async_wait<n>() waits for all its groups
// but the newest n. Other threads see the data after a barrier that follows the wait. Devices
// before sm_80 copy at once.
#pragma once

#include <cuda_runtime.h>

namespace convnet {

// Copies `bytes` (4, 8 or 16, both addresses aligned to that) from global to shared memory; where
// `predicate` is false, writes zeros and does not read `source`. 16 bytes pass L1 by, unless
// `through_l1`: for what this block will read again soon, and no kernel is writing.
template <int bytes, bool through_l1 = false>
__device__ inline void cp_async(void* shared_destination, const void* source, bool predicate) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp_async copies 4, 8 or 16 bytes");
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned destination = static_cast<unsigned>(__cvta_generic_to_shared(shared_destination));
  const int read_bytes = predicate ? bytes : 0;
  if constexpr (bytes == 16 && !through_l1) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(source),
                 "r"(read_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(destination), "l"(source),
                 "n"(bytes), "r"(read_bytes)
                 : "memory");
  }
#else
  unsigned* to = static_cast<unsigned*>(shared_destination);
  if constexpr (bytes == 16) {
    *reinterpret_cast<uint4*>(to) =
        predicate ? *static_cast<const uint4*>(source) : make_uint4(0, 0, 0, 0);
  } else if constexpr (bytes == 8) {
    *reinterpret_cast<uint2*>(to) =
        predicate ? *static_cast<const uint2*>(source) : make_uint2(0, 0);
  } else {
    *to = predicate ? *static_cast<const unsigned*>(source) : 0u;
  }
#endif
}

__device__ inline void cp_async_commit() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int groups_left>
__device__ inline void cp_async_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
#endif
}

}  // namespace convnet
