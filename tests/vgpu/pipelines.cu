// Kernels that copy and multiply while they run on, right ones and with one fault each. The comment
// MARK: name behind a line is where the virtual GPU has to place the error; test_pipelines.py reads
// it.
#include "faults.cuh"

// ---- a ring of two stages: thread 128 fills them, 128 others add up what comes ------------------

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

// ---- wgmma: 64 x 8 x 8, B in rows of 32 bytes ---------------------------------------------------

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
