// Kernels with one fault each, and right ones beside them. The comment MARK: name behind a line is
// where the virtual GPU has to place the error; test_faults.py reads it. All are run by 64 threads
// unless the test says otherwise: x are 64 numbers to read, y 64 to write.
#include "faults.cuh"

// ---- barriers ----------------------------------------------------------------------------------

KERNEL right_barrier(const float* x, float* y) {
  __shared__ float tile[kThreads];
  for (int round = 0; round < 3; ++round) {
    tile[threadIdx.x] = x[threadIdx.x] + static_cast<float>(round);
    __syncthreads();
    y[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
    __syncthreads();
  }
}
KERNEL missing_barrier(const float* x, float* y) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = 0.0f;
  __syncthreads();
  tile[threadIdx.x] = x[threadIdx.x];                 // MARK: missing_barrier
  y[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];  // MARK: missing_barrier
}
// The tile is written again while others may still read it.
KERNEL missing_second_barrier(const float* x, float* y) {
  __shared__ float tile[kThreads];
  float sum = 0.0f;
#pragma unroll 1
  for (int round = 0; round < 3; ++round) {
    tile[threadIdx.x] = x[threadIdx.x] + static_cast<float>(round);  // MARK: missing_second_barrier
    __syncthreads();
    sum += tile[(threadIdx.x + 32) % kThreads];
  }
  y[threadIdx.x] = sum;
}
KERNEL missing_syncwarp(const float* x, float* y) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = tile[threadIdx.x ^ 1];  // MARK: missing_syncwarp
}
KERNEL right_syncwarp(const float* x, float* y) {
  __shared__ float tile[kThreads];
  for (int round = 0; round < 3; ++round) {
    tile[threadIdx.x] = x[threadIdx.x] + static_cast<float>(round);
    __syncwarp();
    y[threadIdx.x] = tile[threadIdx.x ^ 1];
    __syncwarp();
  }
}
// A lane reads what another one then overwrites.
KERNEL missing_second_syncwarp(const float* x, float* y) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncwarp();
  const float other = tile[threadIdx.x ^ 1];
  tile[threadIdx.x] = other;  // MARK: missing_second_syncwarp
  __syncwarp();
  y[threadIdx.x] = tile[threadIdx.x];
}
// Pairs of lanes that synchronize by a mask of their own; then one pair looks at another's.
KERNEL partial_syncwarp(const float* x, float* y) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x % 32 < 16) {
    __syncwarp(0x0000ffffu);
    y[threadIdx.x] = tile[threadIdx.x ^ 1];
    y[threadIdx.x] = tile[threadIdx.x ^ 16];  // MARK: partial_syncwarp
  }
}
KERNEL same_word(const float* x, float* y) {
  __shared__ float word;
  word = x[threadIdx.x % 32];  // MARK: same_word
  __syncthreads();
  y[threadIdx.x] = word;
}
KERNEL right_same_value(const float* x, float* y) {
  __shared__ float word;
  if (threadIdx.x < 32) word = x[0];
  __syncthreads();
  y[threadIdx.x] = word;
}
KERNEL right_bytes(const float* x, float* y) {
  __shared__ unsigned char bytes[kThreads];
  bytes[threadIdx.x] = static_cast<unsigned char>(x[threadIdx.x]);
  y[threadIdx.x] = bytes[threadIdx.x];
}
// Some lanes of a warp, each by itself.
KERNEL right_branch(const float* x, float* y) {
  __shared__ float tile[kThreads];
  const unsigned t = threadIdx.x;
  if (t % 32 < 20) {
    for (int round = 0; round < 2; ++round) {
      tile[t] = x[t] + static_cast<float>(round);
      y[t] = tile[t];
    }
  }
}
KERNEL right_atomics(const float* x, float* y) {
  __shared__ unsigned sums[4];
  if (threadIdx.x < 4) sums[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&sums[threadIdx.x % 4], static_cast<unsigned>(x[threadIdx.x]));
  __syncthreads();
  y[threadIdx.x] = static_cast<float>(sums[threadIdx.x % 4]);
}
KERNEL atomic_without_barrier(const float* x, float* y) {
  __shared__ unsigned sums[4];
  if (threadIdx.x < 4) sums[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&sums[threadIdx.x % 4], static_cast<unsigned>(x[threadIdx.x]));
  y[threadIdx.x] = static_cast<float>(sums[threadIdx.x % 4]);  // MARK: atomic_without_barrier
}

// ---- named barriers: warp 0 writes, warp 1 reads ------------------------------------------------

KERNEL right_named_barriers(const float* x, float* y) {
  __shared__ float tile[32];
  const unsigned lane = threadIdx.x % 32;
  for (int round = 0; round < 3; ++round) {
    if (threadIdx.x < 32) {
      if (round > 0) barrier_sync(2, 64);
      tile[lane] = x[lane] + static_cast<float>(round);
      barrier_arrive(1, 64);
    } else {
      barrier_sync(1, 64);
      y[lane] = tile[31 - lane];
      if (round < 2) barrier_arrive(2, 64);
    }
  }
}
KERNEL named_barrier_missing(const float* x, float* y) {
  __shared__ float tile[32];
  const unsigned lane = threadIdx.x % 32;
#pragma unroll 1
  for (int round = 0; round < 3; ++round) {
    if (threadIdx.x < 32) {
      tile[lane] = x[lane] + static_cast<float>(round);  // MARK: named_barrier_missing
      barrier_arrive(1, 64);
    } else {
      barrier_sync(1, 64);        // MARK: named_barrier_missing
      y[lane] = tile[31 - lane];  // MARK: named_barrier_missing
    }
  }
}
KERNEL named_barriers_crossed(const float*, float* y) {
  if (threadIdx.x < 32)
    barrier_sync(1, 64);  // MARK: named_barriers_crossed
  else
    barrier_sync(2, 64);
  y[threadIdx.x] = 1.0f;
}

// ---- mbarriers: warp 0 writes, warp 1 reads -----------------------------------------------------

template <bool synchronizes>
__device__ void elected_arrival(const float* x, float* y) {
  __shared__ float tile[32];
  __shared__ Mbarrier full;
  const unsigned lane = threadIdx.x % 32;
  if (threadIdx.x == 0) init(&full, 1);
  __syncthreads();
  if (threadIdx.x < 32) {
    tile[lane] = x[lane];
    if (synchronizes) __syncwarp();
    if (lane == 0) arrive(&full);
  } else {
    wait(&full, 0);
    y[lane] = tile[31 - lane];  // MARK: elected_arrival
  }
}
KERNEL right_elected_arrival(const float* x, float* y) { elected_arrival<true>(x, y); }
// One lane arrives for all, which have not synchronized with it.
KERNEL bad_elected_arrival(const float* x, float* y) { elected_arrival<false>(x, y); }

// One lane waits; the others may not read because of that.
KERNEL elected_wait(const float* x, float* y) {
  __shared__ float tile[32];
  __shared__ Mbarrier full;
  const unsigned lane = threadIdx.x % 32;
  if (threadIdx.x == 0) init(&full, 32);
  __syncthreads();
  if (threadIdx.x < 32) {
    tile[lane] = x[lane];
    arrive(&full);
  } else {
    if (lane == 0) wait(&full, 0);
    y[lane] = tile[lane];  // MARK: elected_wait
  }
}

// ---- asynchronous copies -----------------------------------------------------------------------

KERNEL right_async(const float* x, float* y) {
  __shared__ float tile[2][kThreads];
  const unsigned t = threadIdx.x;
  for (int i = 0; i < 2; ++i) {
    copy4(&tile[i][t], x + t);
    commit();
  }
  wait_copies<1>();
  y[t] = tile[0][t];
  wait_copies<0>();
  __syncthreads();
  y[t] += tile[1][kThreads - 1 - t];
}
KERNEL async_without_wait(const float* x, float* y) {
  __shared__ float tile[kThreads];
  const unsigned t = threadIdx.x;
  copy4(&tile[t], x + t);
  commit();
  __syncthreads();
  y[t] = tile[t];  // MARK: async_without_wait
  wait_copies<0>();
}
// One group too many may still be under way.
KERNEL async_wait_too_few(const float* x, float* y) {
  __shared__ float tile[2][kThreads];
  const unsigned t = threadIdx.x;
  for (int i = 0; i < 2; ++i) {
    copy4(&tile[i][t], x + t);
    commit();
  }
  wait_copies<1>();
  y[t] = tile[0][t];
  y[t] += tile[1][t];  // MARK: async_wait_too_few
}
// Waited for, but only by the thread that copied.
KERNEL async_without_barrier(const float* x, float* y) {
  __shared__ float tile[kThreads];
  const unsigned t = threadIdx.x;
  copy4(&tile[t], x + t);
  commit();
  wait_copies<0>();
  y[t] = tile[kThreads - 1 - t];  // MARK: async_without_barrier
}
KERNEL misaligned_async(const float* x, float* y) {
  __shared__ __align__(16) float tile[kThreads + 4];
  copy16(&tile[threadIdx.x], x);  // MARK: misaligned_async
  y[threadIdx.x] = 0.0f;
}

// ---- reads of what is not there ----------------------------------------------------------------

KERNEL unwritten_shared(const float* x, float* y) {
  __shared__ float tile[kThreads + 1];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x + 1];  // MARK: unwritten_shared
}

// ---- threads that do not meet ------------------------------------------------------------------

KERNEL exit_before_barrier(const float* x, float* y) {
  if (threadIdx.x >= 50) return;
  y[threadIdx.x] = x[threadIdx.x];
  __syncthreads();  // MARK: exit_before_barrier
}
KERNEL two_barriers(const float* x, float* y) {
  if (threadIdx.x < 32) {
    y[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
  } else {
    __syncthreads();  // MARK: two_barriers
    y[threadIdx.x] = x[threadIdx.x + 1];
  }
}
KERNEL uneven_loop(const float* x, float* y) {
  float sum = 0.0f;
#pragma unroll 1
  for (unsigned i = 0; i <= threadIdx.x / 32; ++i) {
    sum += x[i];
    __syncthreads();  // MARK: uneven_loop
  }
  y[threadIdx.x] = sum;
}
KERNEL shuffle_in_branch(const float* x, float* y) {
  float value = x[threadIdx.x];
  if (threadIdx.x % 2 == 0) value += __shfl_xor_sync(kAll, value, 2);  // MARK: shuffle_in_branch
  __syncthreads();
  y[threadIdx.x] = value;
}
KERNEL different_operations(const float* x, float* y) {
  const float value = x[threadIdx.x];
  if (threadIdx.x % 32 < 16)
    y[threadIdx.x] = __shfl_sync(kAll, value, 0);  // MARK: different_operations
  else
    y[threadIdx.x] = static_cast<float>(__ballot_sync(kAll, value > 0));
}
KERNEL mask_without_self(const float* x, float* y) {
  y[threadIdx.x] = __shfl_sync(0x0000fffeu, x[threadIdx.x], 1);  // MARK: mask_without_self
}
// The source lane is named by the mask, but has ended.
KERNEL shuffle_from_the_dead(const float* x, float* y) {
  if (threadIdx.x % 32 >= 16) return;
  y[threadIdx.x] = __shfl_xor_sync(kAll, x[threadIdx.x], 16);  // MARK: shuffle_from_the_dead
}
KERNEL mma_in_part(const float*, float* y) {
  float d[4] = {};
  const unsigned a = 0;
  if (threadIdx.x % 32 >= 8) return;
  asm volatile(  // MARK: mma_in_part
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %4, %4, %4}, {%4, %4}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a));  // MARK: mma_in_part
  y[threadIdx.x] = d[0];
}

// ---- outside of memory -------------------------------------------------------------------------

KERNEL shared_write_overrun(const float* x, float* y) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x + 1] = x[threadIdx.x];  // MARK: shared_write_overrun
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}
KERNEL shared_read_overrun(const float* x, float* y) {
  extern __shared__ float tile[];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x + 1];  // MARK: shared_read_overrun
}
KERNEL global_overrun(const float* x, float* y) {
  y[threadIdx.x + 1] = x[threadIdx.x];  // MARK: global_overrun
}
KERNEL global_read_overrun(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x + 1];  // MARK: global_read_overrun
}
__device__ __forceinline__ float element(const float* x, int i) {
  return x[i];  // MARK: inlined
}
__device__ __noinline__ float called_element(const float* x, int i) {
  return x[i];  // MARK: called
}
KERNEL called_overrun(const float* x, float* y) {
  y[threadIdx.x] = called_element(x, threadIdx.x + 1);  // MARK: called_overrun
}
KERNEL right_call(const float* x, float* y) {
  y[threadIdx.x] = called_element(x, 63 - threadIdx.x);
}
KERNEL far_overrun(const float* x, float* y) {
  y[threadIdx.x] = element(x, threadIdx.x + 1024);  // MARK: far_overrun
}
KERNEL null_pointer(const float* x, float* y) {
  if (threadIdx.x == 3) y = nullptr;
  if (threadIdx.x == 3) *y = x[0];  // MARK: null_pointer
}
KERNEL misaligned(const float* x, float* y) {
  *reinterpret_cast<float4*>(y) =
      *reinterpret_cast<const float4*>(x + threadIdx.x);  // MARK: misaligned
}

// ---- the rest ----------------------------------------------------------------------------------

KERNEL trap_in_one(const float* x, float* y) {
  if (threadIdx.x == 5 && blockIdx.x == 2) __trap();  // MARK: trap_in_one
  y[threadIdx.x] = x[threadIdx.x];
}
KERNEL divide(const float* x, float* y) {
  const int divisor = static_cast<int>(x[0] - x[0]);
  y[threadIdx.x] = static_cast<float>(static_cast<int>(x[1]) / divisor);  // MARK: divide
}
