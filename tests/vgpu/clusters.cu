// Kernels of several blocks in a cluster, right and with one fault each. The comment MARK: name
// behind a line is where the virtual GPU has to place the error; test_clusters.py reads it. All are
// run by two clusters of two blocks of 64 threads: x are 256 numbers to read, y 256 to write.
#include <cooperative_groups.h>

#include <cstdint>

namespace cg = cooperative_groups;

#define KERNEL extern "C" __global__ void __cluster_dims__(2, 1, 1)

constexpr int kThreads = 64;
constexpr unsigned kBytes = kThreads * sizeof(float);

// ---- PTX that CUDA has no function for ----------------------------------------------------------

using Mbarrier = std::uint64_t;

__device__ inline unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
// The address of the same place in another block's shared memory.
__device__ inline unsigned mapped(const void* p, unsigned rank) {
  unsigned address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(p)), "r"(rank));
  return address;
}
__device__ inline unsigned cluster_rank() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ inline void arrive_cluster() {
  asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");
}
__device__ inline void arrive_cluster_relaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ inline void wait_cluster() {
  asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
}
__device__ inline void sync_cluster() {
  arrive_cluster();
  wait_cluster();
}
__device__ inline void init(Mbarrier* b, unsigned count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(count)
               : "memory");
}
__device__ inline void fence_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void fence_async() { asm volatile("fence.proxy.async;" ::: "memory"); }
__device__ inline void expect(Mbarrier* b, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)),
               "r"(bytes)
               : "memory");
}
template <bool cluster_scope = true>
__device__ inline void arrive_at(unsigned barrier) {
  if (cluster_scope)
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier)
                 : "memory");
  else
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void wait(Mbarrier* b, unsigned parity) {
  unsigned complete;
  do {
    asm volatile(
        "{\n"
        ".reg .pred complete;\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 complete, [%1], %2;\n"
        "selp.u32 %0, 1, 0, complete;\n"
        "}"
        : "=r"(complete)
        : "r"(shared_address(b)), "r"(parity)
        : "memory");
  } while (complete == 0);
}
__device__ inline void multicast(void* to, const void* from, unsigned bytes, Mbarrier* b,
                                 std::uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(b)), "h"(blocks)
      : "memory");
}
__device__ inline void send(unsigned to, const void* from, unsigned bytes, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes "
      "[%0], [%1], %2, [%3];" ::"r"(to),
      "r"(shared_address(from)), "r"(bytes), "r"(barrier)
      : "memory");
}
__device__ inline void store_async(unsigned to, float value, unsigned barrier) {
  asm volatile(
      "st.async.mbarrier::complete_tx::bytes.shared::cluster.f32 [%0], %1, [%2];" ::"r"(to),
      "f"(value), "r"(barrier)
      : "memory");
}
__device__ inline void store_at(unsigned to, float value) {
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(to), "f"(value) : "memory");
}
__device__ inline unsigned element() { return blockIdx.x * kThreads + threadIdx.x; }

// ---- shared memory of another block -------------------------------------------------------------

enum class Without { kNone, kFirst, kSecond, kBounds, kRank };

// Each block reads the other's tile.
template <Without fault>
__device__ void exchange(const float* x, float* y) {
  __shared__ float tile[kThreads];
  const cg::cluster_group cluster = cg::this_cluster();
  tile[threadIdx.x] = x[element()];
  __syncthreads();
  if (fault != Without::kFirst) cluster.sync();
  constexpr unsigned kOther = fault == Without::kRank ? 3 : 1;
  const unsigned rank = cluster.block_rank() ^ kOther;       // MARK: rank
  const float* other = cluster.map_shared_rank(tile, rank);  // MARK: rank
  if (fault == Without::kBounds) other += 1;
  y[element()] = other[threadIdx.x];  // MARK: exchange
  if (fault != Without::kSecond) cluster.sync();
}
KERNEL exchange_right(const float* x, float* y) { exchange<Without::kNone>(x, y); }
KERNEL exchange_no_first(const float* x, float* y) { exchange<Without::kFirst>(x, y); }
KERNEL exchange_no_second(const float* x, float* y) { exchange<Without::kSecond>(x, y); }
KERNEL exchange_bounds(const float* x, float* y) { exchange<Without::kBounds>(x, y); }
KERNEL exchange_rank(const float* x, float* y) { exchange<Without::kRank>(x, y); }

// The tile is written again while the other block may still read it.
template <bool right>
__device__ void rewritten(const float* x, float* y) {
  __shared__ float tile[kThreads];
  const unsigned other = mapped(&tile[threadIdx.x], cluster_rank() ^ 1);
  tile[threadIdx.x] = x[element()];
  sync_cluster();
  float value;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(other));  // MARK: rewritten
  if (right) sync_cluster();
  tile[threadIdx.x] = 2 * x[element()];  // MARK: rewritten
  sync_cluster();
  float again;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(again) : "r"(other));
  y[element()] = value + again;
  sync_cluster();
}
KERNEL rewritten_right(const float* x, float* y) { rewritten<true>(x, y); }
KERNEL rewritten_race(const float* x, float* y) { rewritten<false>(x, y); }

// Writes to the other block; a barrier that is relaxed passes nothing on, unless after a fence.
enum class Barrier { kRelease, kRelaxed, kFenced };
template <Barrier barrier>
__device__ void written(const float* x, float* y) {
  __shared__ float tile[kThreads];
  sync_cluster();
  store_at(mapped(&tile[threadIdx.x], cluster_rank() ^ 1), x[element()]);
  if (barrier == Barrier::kFenced) asm volatile("fence.acq_rel.cluster;" ::: "memory");
  if (barrier == Barrier::kRelease)
    arrive_cluster();
  else
    arrive_cluster_relaxed();
  wait_cluster();
  y[element()] = tile[threadIdx.x];  // MARK: written
  sync_cluster();
}
KERNEL written_right(const float* x, float* y) { written<Barrier::kRelease>(x, y); }
KERNEL written_fenced(const float* x, float* y) { written<Barrier::kFenced>(x, y); }
KERNEL written_relaxed(const float* x, float* y) { written<Barrier::kRelaxed>(x, y); }

// Atomics of all threads of the cluster on a word of its first block.
KERNEL counted(const float* x, float* y) {
  __shared__ unsigned sum;
  if (threadIdx.x == 0) sum = 0;
  sync_cluster();
  unsigned* const first = cg::this_cluster().map_shared_rank(&sum, 0);
  atomicAdd(first, static_cast<unsigned>(x[element()]));
  sync_cluster();
  y[element()] = static_cast<float>(*first);
  sync_cluster();
}
// An address of the other block in the window of the own one.
KERNEL wrong_window(const float* x, float* y) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = x[element()];
  sync_cluster();
  float value;
  asm volatile("ld.shared::cta.f32 %0, [%1];"  // MARK: wrong_window
               : "=f"(value)
               : "r"(mapped(&tile[threadIdx.x], cluster_rank() ^ 1)));  // MARK: wrong_window
  y[element()] = value;
  sync_cluster();
}

// ---- the cluster's barrier ----------------------------------------------------------------------

KERNEL ended_do_not_count(const float* x, float* y) {
  y[element()] = x[element()];
  if (threadIdx.x >= 32) return;
  sync_cluster();
}
KERNEL arrives_twice(const float*, float* y) {
  arrive_cluster();
  arrive_cluster();  // MARK: arrives_twice
  wait_cluster();
  y[element()] = 0.0f;
}
KERNEL waits_only(const float*, float* y) {
  wait_cluster();  // MARK: waits_only
  y[element()] = 0.0f;
}
KERNEL one_block_waits(const float*, float* y) {
  if (cluster_rank() == 0) {
    sync_cluster();  // MARK: one_block_waits
  } else {
    __shared__ Mbarrier never;
    if (threadIdx.x == 0) init(&never, 1);
    __syncthreads();
    wait(&never, 0);
  }
  y[element()] = 0.0f;
}

// ---- mbarriers of another block -----------------------------------------------------------------

enum class Fault {
  kNone,
  kCtaScope,       // the arrival is for the own block only
  kNoInitFence,    // a relaxed cluster barrier after mbarrier.init without its fence
  kNoClusterSync,  // the barrier is used before the other block can have made it
  kNobodyWaits,    // a copy that its target does not wait for
  kEarlyEnd,       // the block that sends ends before its bytes have been read
  kOverwritten,    // what is sent is written again at once
  kNoProxyFence,
  kTooFew,   // the mbarrier expects fewer bytes
  kNoBlock,  // multicast to a block that is not there
};

// Each block arrives at the other's barrier, having written to the other's tile.
template <Fault fault>
__device__ void signal(const float* x, float* y) {
  __shared__ float tile[kThreads];
  __shared__ Mbarrier full;
  const unsigned other = cluster_rank() ^ 1;
  if (threadIdx.x == 0) init(&full, kThreads);
  if (fault != Fault::kNoInitFence) fence_init();
  if (fault != Fault::kNoClusterSync) {
    arrive_cluster_relaxed();
    wait_cluster();
  }
  store_at(mapped(&tile[threadIdx.x], other), x[element()]);   // MARK: signal_store
  arrive_at<fault != Fault::kCtaScope>(mapped(&full, other));  // MARK: signal_arrive
  wait(&full, 0);
  y[element()] = tile[threadIdx.x];  // MARK: signal_read
  sync_cluster();
}
KERNEL signal_right(const float* x, float* y) { signal<Fault::kNone>(x, y); }
KERNEL signal_cta_scope(const float* x, float* y) { signal<Fault::kCtaScope>(x, y); }
KERNEL signal_no_init_fence(const float* x, float* y) { signal<Fault::kNoInitFence>(x, y); }
KERNEL signal_no_cluster_sync(const float* x, float* y) { signal<Fault::kNoClusterSync>(x, y); }

// The first block ends when it has arrived, and nobody waits for that at the second one's end.
KERNEL arrival_at_the_dead(const float*, float* y) {
  __shared__ Mbarrier done;
  if (threadIdx.x == 0) init(&done, 1);
  sync_cluster();
  if (cluster_rank() == 0 && threadIdx.x == 0)
    arrive_at(mapped(&done, 1));  // MARK: arrival_at_the_dead
  y[element()] = 0.0f;
}

// ---- asynchronous copies to other blocks --------------------------------------------------------

// The first block of a cluster copies its part of x to both.
template <Fault fault>
__device__ void broadcast(const float* x, float* y) {
  __shared__ __align__(16) float tile[kThreads];
  __shared__ Mbarrier full;
  if (threadIdx.x == 0) {
    init(&full, 1);
    fence_init();
  }
  sync_cluster();
  if (threadIdx.x == 0) {
    expect(&full, fault == Fault::kTooFew ? kBytes / 2 : kBytes);
    const std::uint16_t blocks = fault == Fault::kNoBlock ? 6 : 3;
    if (cluster_rank() == 0)
      multicast(tile, x + element(), kBytes, &full, blocks);  // MARK: broadcast
  }
  if (fault != Fault::kNobodyWaits || cluster_rank() == 0) {
    wait(&full, 0);
    y[element()] = tile[threadIdx.x];
  }
  sync_cluster();
}
KERNEL broadcast_right(const float* x, float* y) { broadcast<Fault::kNone>(x, y); }
KERNEL broadcast_nobody_waits(const float* x, float* y) { broadcast<Fault::kNobodyWaits>(x, y); }
KERNEL broadcast_too_few(const float* x, float* y) { broadcast<Fault::kTooFew>(x, y); }
KERNEL broadcast_no_block(const float* x, float* y) { broadcast<Fault::kNoBlock>(x, y); }

// Each block sends its tile to the other by a bulk copy.
template <Fault fault>
__device__ void sent(const float* x, float* y) {
  __shared__ __align__(16) float out[kThreads], in[kThreads];
  __shared__ Mbarrier full;
  const unsigned other = cluster_rank() ^ 1;
  if (threadIdx.x == 0) init(&full, 1);
  out[threadIdx.x] = x[element()];
  if (fault != Fault::kNoProxyFence) fence_async();
  sync_cluster();
  if (threadIdx.x == 0) {
    expect(&full, kBytes);
    send(mapped(in, other), out, kBytes, mapped(&full, other));  // MARK: sent
  }
  if (fault == Fault::kOverwritten) {
    __syncthreads();
    out[threadIdx.x] = 0.0f;  // MARK: overwritten
  }
  wait(&full, 0);
  y[element()] = in[threadIdx.x];
  if (fault != Fault::kEarlyEnd) sync_cluster();
}
KERNEL sent_right(const float* x, float* y) { sent<Fault::kNone>(x, y); }
KERNEL sent_early_end(const float* x, float* y) { sent<Fault::kEarlyEnd>(x, y); }
KERNEL sent_overwritten(const float* x, float* y) { sent<Fault::kOverwritten>(x, y); }
KERNEL sent_no_proxy_fence(const float* x, float* y) { sent<Fault::kNoProxyFence>(x, y); }

// Each thread stores a value in the other block, which waits for all of them.
template <Fault fault>
__device__ void stored(const float* x, float* y) {
  __shared__ float in[kThreads];
  __shared__ Mbarrier full;
  const unsigned other = cluster_rank() ^ 1;
  if (threadIdx.x == 0) {
    init(&full, 1);
    expect(&full, kBytes);
  }
  sync_cluster();
  store_async(mapped(&in[threadIdx.x], other), x[element()], mapped(&full, other));
  if (fault != Fault::kNobodyWaits) wait(&full, 0);
  y[element()] = in[threadIdx.x];  // MARK: stored
  sync_cluster();
}
KERNEL stored_right(const float* x, float* y) { stored<Fault::kNone>(x, y); }
KERNEL stored_nobody_waits(const float* x, float* y) { stored<Fault::kNobodyWaits>(x, y); }

// ---- right kernels of eight blocks --------------------------------------------------------------

// A sum over the blocks of a cluster, in steps of two, four and eight.
extern "C" __global__ void __cluster_dims__(4, 2, 1) butterfly(const float* x, float* y) {
  __shared__ float tile[2][kThreads];
  const cg::cluster_group cluster = cg::this_cluster();
  const unsigned at = (blockIdx.y * gridDim.x + blockIdx.x) * kThreads + threadIdx.x;
  float sum = x[at];
  int stage = 0;
  for (unsigned distance = 1; distance < cluster.num_blocks(); distance *= 2) {
    tile[stage][threadIdx.x] = sum;
    cluster.sync();
    sum += cluster.map_shared_rank(tile[stage], cluster.block_rank() ^ distance)[threadIdx.x];
    stage ^= 1;
  }
  cluster.sync();
  y[at] = sum;
}
