// Kernels with one fault each, and right ones beside them. The comment MARK: name behind a line is
// where the virtual GPU has to place the error; test_faults.py reads it. All are run by 64 threads
// unless the test says otherwise: x are 64 numbers to read, y 64 to write.
#include <cstdint>

#define KERNEL extern "C" __global__ void

constexpr unsigned kAll = 0xffffffffu;
constexpr int kThreads = 64;

// ---- PTX that CUDA has no function for ----------------------------------------------------------

__device__ inline unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
__device__ inline void copy4(float* to, const float* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from)
               : "memory");
}
__device__ inline void copy16(float* to, const float* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from)
               : "memory");
}
__device__ inline void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int left>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}
__device__ inline void barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void fence_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

using Mbarrier = std::uint64_t;
__device__ inline void init(Mbarrier* b, unsigned count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(count)
               : "memory");
}
__device__ inline void arrive(Mbarrier* b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
__device__ inline void expect(Mbarrier* b, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)),
               "r"(bytes)
               : "memory");
}
__device__ inline void wait(Mbarrier* b, unsigned parity) {
  unsigned complete;
  do {
    asm volatile(
        "{\n"
        ".reg .pred complete;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 complete, [%1], %2;\n"
        "selp.u32 %0, 1, 0, complete;\n"
        "}"
        : "=r"(complete)
        : "r"(shared_address(b)), "r"(parity)
        : "memory");
  } while (complete == 0);
}
__device__ inline void bulk(void* to, const void* from, unsigned bytes, Mbarrier* b) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(b))
      : "memory");
}

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

// ---- named barriers: warp 0 writes, warp 1 reads
// -------------------------------------------------

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

// ---- mbarriers: warp 0 writes, warp 1 reads
// ------------------------------------------------------

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

// ---- a ring of two stages: thread 128 fills them, 128 others add up what comes
// -------------------

enum class Fault {
  kNone,
  kNoInit,
  kNoInitFence,
  kNoFull,
  kNoEmpty,
  kNeverArrives,
  kTooManyBytes,
  kTooOften,
  kNotWaited,
};
constexpr int kConsumers = 128, kSteps = 6, kRing = 2;

template <Fault fault>
__device__ __forceinline__ void pipeline(const float* x, float* y) {
  __shared__ __align__(16) float stages[kRing][kConsumers];
  __shared__ Mbarrier full[kRing], empty[kRing];
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0 && fault != Fault::kNoInit) {
    for (int i = 0; i < kRing; ++i) {
      init(&full[i], 1);
      init(&empty[i], kConsumers);
    }
    if (fault != Fault::kNoInitFence) fence_async();
  }
  __syncthreads();
  if (thread == kConsumers) {
    for (int step = 0; step < kSteps; ++step) {
      const int slot = step % kRing;
      if (fault != Fault::kNoEmpty) wait(&empty[slot], (step / kRing & 1) ^ 1);
      const unsigned bytes = kConsumers * sizeof(float);
      expect(&full[slot], fault == Fault::kTooManyBytes ? bytes / 2 : bytes);  // MARK: copy
      if (fault == Fault::kTooOften) arrive(&full[slot]);                      // MARK: too_often
      bulk(stages[slot], x + step * kConsumers, bytes, &full[slot]);           // MARK: copy
    }
  } else if (thread < kConsumers) {
    float sum = 0.0f;
    const int steps = fault == Fault::kNotWaited ? kSteps - 1 : kSteps;
    for (int step = 0; step < steps; ++step) {
      const int slot = step % kRing;
      if (fault != Fault::kNoFull) wait(&full[slot], step / kRing & 1);
      sum = 2.0f * sum + stages[slot][kConsumers - 1 - thread];  // MARK: stage
      if (fault != Fault::kNeverArrives) arrive(&empty[slot]);
    }
    y[thread] = sum;
  }
}
KERNEL pipeline_right(const float* x, float* y) { pipeline<Fault::kNone>(x, y); }
KERNEL pipeline_no_init(const float* x, float* y) { pipeline<Fault::kNoInit>(x, y); }
KERNEL pipeline_no_init_fence(const float* x, float* y) { pipeline<Fault::kNoInitFence>(x, y); }
KERNEL pipeline_no_full(const float* x, float* y) { pipeline<Fault::kNoFull>(x, y); }
KERNEL pipeline_no_empty(const float* x, float* y) { pipeline<Fault::kNoEmpty>(x, y); }
KERNEL pipeline_never_arrives(const float* x, float* y) { pipeline<Fault::kNeverArrives>(x, y); }
KERNEL pipeline_too_many_bytes(const float* x, float* y) { pipeline<Fault::kTooManyBytes>(x, y); }
KERNEL pipeline_too_often(const float* x, float* y) { pipeline<Fault::kTooOften>(x, y); }
KERNEL pipeline_not_waited(const float* x, float* y) { pipeline<Fault::kNotWaited>(x, y); }

// What was written by ordinary stores is copied over.
template <bool fenced>
__device__ __forceinline__ void copy_over(const float* x, float* y) {
  __shared__ __align__(16) float tile[kThreads];
  __shared__ Mbarrier full;
  if (threadIdx.x == 0) {
    init(&full, 1);
    fence_async();
  }
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
  if (fenced) fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    expect(&full, sizeof tile);
    bulk(tile, x, sizeof tile, &full);  // MARK: copy_over
  }
  wait(&full, 0);
  y[threadIdx.x] += tile[threadIdx.x];
}
KERNEL copy_over_right(const float* x, float* y) { copy_over<true>(x, y); }
KERNEL copy_over_without_fence(const float* x, float* y) { copy_over<false>(x, y); }

// ---- wgmma: 64 x 8 x 8, B in rows of 32 bytes
// ----------------------------------------------------

enum class Wgmma { kRight, kNoFence, kNoWait, kNoProxyFence, kReadsEarly, kReused, kOverwritten };

template <Wgmma fault>
__device__ __forceinline__ void product(const float* x, float* y) {
  __shared__ __align__(1024) float b[64];
  const unsigned t = threadIdx.x;
  if (t < 64) b[t] = x[t];
  if (fault != Wgmma::kNoProxyFence) fence_async();
  __syncthreads();
  float d[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  unsigned a[4];
  for (int i = 0; i < 4; ++i) a[i] = __float_as_uint(static_cast<float>(i));
  const std::uint64_t descriptor = 3ull << 62 | std::uint64_t{8 * 32 / 16} << 32 | 1ull << 16 |
                                   (shared_address(b) & 0x3ffff) >> 4;
  if (fault != Wgmma::kNoFence) asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  asm volatile(  // MARK: wgmma
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, adds, 1, 1;\n}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(descriptor));  // MARK: wgmma
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  if (fault == Wgmma::kReadsEarly) y[t] = d[0];  // MARK: reads_early
  if (fault == Wgmma::kReused) {
    asm volatile("mov.b32 %0, 0;" : "+r"(a[0])::"memory");  // MARK: reused
    y[t] = __uint_as_float(a[0]);
  }
  if (fault == Wgmma::kOverwritten) {
    __syncthreads();
    if (t < 64) b[t] = 0.0f;  // MARK: overwritten
  }
  if (fault != Wgmma::kNoWait) asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(d[i])::"memory");
  if (fault != Wgmma::kNoWait) y[t] = d[0] + d[1] + d[2] + d[3];
}
KERNEL wgmma_right(const float* x, float* y) { product<Wgmma::kRight>(x, y); }
KERNEL wgmma_no_fence(const float* x, float* y) { product<Wgmma::kNoFence>(x, y); }
KERNEL wgmma_no_wait(const float* x, float* y) { product<Wgmma::kNoWait>(x, y); }
KERNEL wgmma_no_proxy_fence(const float* x, float* y) { product<Wgmma::kNoProxyFence>(x, y); }
KERNEL wgmma_reads_early(const float* x, float* y) { product<Wgmma::kReadsEarly>(x, y); }
KERNEL wgmma_reused(const float* x, float* y) { product<Wgmma::kReused>(x, y); }
KERNEL wgmma_overwritten(const float* x, float* y) { product<Wgmma::kOverwritten>(x, y); }
