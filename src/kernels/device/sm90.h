// Operations of Hopper GPUs. Each is one PTX instruction, or a few, of sm_90a; on other devices
// they trap. The PTX ISA manual describes them under "mbarrier", "Asynchronous copy: bulk and
// tensor" and "Asynchronous warpgroup level matrix instructions".
//
// How they work together. A producer thread says how many bytes a barrier is to wait for and starts
// copies to shared memory, which are done by a unit of their own; the last byte completes the
// barrier's phase. Consumers wait for it, multiply, and arrive at a second barrier, for which the
// producer waits before it writes to the same place again.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "launch.h"

namespace convnet {

// Whether what is being compiled may use them: a kernel that does is empty where it may not.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define CONVNET_HOPPER_PTX 1
#else
#define CONVNET_HOPPER_PTX 0
#endif
constexpr bool kCompiledForHopper = CONVNET_HOPPER_PTX;

// The address in the shared window, which swizzles and descriptors go by.
__device__ inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Two floats of shared memory, at an address of that window that is a multiple of 8.
__device__ inline float2 load_pair(unsigned address) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address));
  return v;
}

// ---- barriers in shared memory -----------------------------------------------------------------
// A phase is complete when `count` threads have arrived and all expected bytes have; then the next
// one begins. Phases are told apart by their parity, 0 first. Waiting for parity 1 of a fresh
// barrier returns at once.

using Mbarrier = std::uint64_t;

__device__ inline void mbarrier_init(Mbarrier* barrier, unsigned count) {
#if CONVNET_HOPPER_PTX
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count)
               : "memory");
#else
  __trap();
#endif
}

// By the thread that initialized barriers, before the __syncthreads() after which they are used.
__device__ inline void mbarrier_init_done() {
#if CONVNET_HOPPER_PTX
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

__device__ inline void mbarrier_arrive(Mbarrier* barrier) {
#if CONVNET_HOPPER_PTX
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
#else
  __trap();
#endif
}

// Arrives, and lets the phase wait for so many bytes besides.
__device__ inline void mbarrier_arrive_expect(Mbarrier* barrier, unsigned bytes) {
#if CONVNET_HOPPER_PTX
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
#else
  __trap();
#endif
}

// Returns when the phase of that parity is complete.
__device__ inline void mbarrier_wait(Mbarrier* barrier, unsigned parity) {
#if CONVNET_HOPPER_PTX
  unsigned complete;
  do {
    asm volatile(
        "{\n"
        ".reg .pred complete;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 complete, [%1], %2;\n"
        "selp.u32 %0, 1, 0, complete;\n"
        "}"
        : "=r"(complete)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  } while (complete == 0);
#else
  __trap();
#endif
}

// ---- copies to shared memory -------------------------------------------------------------------

// Copies `bytes` (a multiple of 16, as both addresses are), and lets `barrier` know.
__device__ inline void bulk_copy(void* shared_destination, const void* source, unsigned bytes,
                                 Mbarrier* barrier) {
#if CONVNET_HOPPER_PTX
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(shared_destination)),
      "l"(source), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
#else
  __trap();
#endif
}

// A tensor of four dimensions, the last one contiguous, and the box of it that is copied at once. In
// shared memory the box has rows of 32 or 64 bytes, whose two or four pieces of 16 bytes are
// permuted: piece i of the row at address a is at i ^ (a / 128 mod 2 or 4).
using TensorMap = CUtensorMap;

// The map of x [N,H,W,C] for boxes of `pixels` successive pixels of a row, with so many bytes of
// channels each: 64, or of bfloat16 also 32. x is aligned to 16 bytes, as its pixels are, and there
// are at most 256. Throws std::runtime_error.
template <class T>
TensorMap pixel_row_map(OpName op, const T* x, int n, int h, int w, int c, int pixels,
                        int pixel_bytes);

// Copies the box that begins at x[n, row, column, channel]: what lies outside x is zero. The
// destination is aligned to 512 bytes.
__device__ inline void pixel_row_copy(void* shared_destination, const TensorMap& map, int n,
                                      int row, int column, int channel, Mbarrier* barrier) {
#if CONVNET_HOPPER_PTX
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(shared_address(shared_destination)),
      "l"(&map), "r"(channel), "r"(column), "r"(row), "r"(n), "r"(shared_address(barrier))
      : "memory");
#else
  __trap();
#endif
}

// Lets wgmma and copies, which go past the order of ordinary accesses, see what this thread has
// written to shared memory: before the barrier after which they do.
__device__ inline void fence_shared_writes() {
#if CONVNET_HOPPER_PTX
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// ---- registers ---------------------------------------------------------------------------------

// Each thread of a warpgroup has `count` registers from here on.
template <int count>
__device__ inline void give_registers_back() {
#if CONVNET_HOPPER_PTX
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
#endif
}
template <int count>
__device__ inline void take_registers() {
#if CONVNET_HOPPER_PTX
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
#endif
}

// ---- wgmma -------------------------------------------------------------------------------------
// D += A B by a warpgroup, four warps: warp i has rows 16 i ... 16 i + 15 of D, 64 x n, and of A,
// 64 x 32 bytes, in its registers, as in mma.m16n8k8 and .m16n8k16 (mma.h): d[j] is columns
// 8 j ... 8 j + 7. B, n x 32 bytes, is in shared memory. The product is under way until
// wgmma_wait(); till then none of its registers may be touched, nor B.

// B lies in rows of kSpan (32, 64 or 128) bytes, the pieces of 16 bytes permuted: in eight rows,
// which are aligned to 8 kSpan, piece i of row r is at i ^ (kSpan r / 128 mod kSpan / 16).
template <int kSpan>
__device__ inline std::uint64_t wgmma_descriptor(const void* shared) {
  static_assert(kSpan == 32 || kSpan == 64 || kSpan == 128, "a swizzle spans 32, 64 or 128 bytes");
  constexpr std::uint64_t kMode = kSpan == 128 ? 1 : kSpan == 64 ? 2 : 3;
  const unsigned address = shared_address(shared);
  constexpr std::uint64_t kRest = kMode << 62 | std::uint64_t{8 * kSpan / 16} << 32 | 1ull << 16;
  return kRest | (address & 0x3ffffu) >> 4;
}

// The registers may be used by the next wgmma: after the last ordinary write to them.
__device__ inline void wgmma_fence() {
#if CONVNET_HOPPER_PTX
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
  __trap();
#endif
}
__device__ inline void wgmma_commit() {
#if CONVNET_HOPPER_PTX
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
  __trap();
#endif
}
// Waits for all committed groups but the newest `groups_left`.
template <int groups_left>
__device__ inline void wgmma_wait() {
#if CONVNET_HOPPER_PTX
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups_left) : "memory");
#else
  __trap();
#endif
}

// The compiler does not know that wgmma_wait() changes registers, nor that products under way read
// some: it moves no use of these past this line.
template <int count>
__device__ inline void keep_in_place(float (&d)[count][4]) {
#if CONVNET_HOPPER_PTX
#pragma unroll
  for (int j = 0; j < count; ++j) {
#pragma unroll
    for (int l = 0; l < 4; ++l) asm volatile("" : "+f"(d[j][l])::"memory");
  }
#else
  (void)d;
#endif
}
__device__ inline void keep_in_place(unsigned (&a)[4]) {
#if CONVNET_HOPPER_PTX
#pragma unroll
  for (int l = 0; l < 4; ++l) asm volatile("" : "+r"(a[l])::"memory");
#else
  (void)a;
#endif
}

#if CONVNET_HOPPER_PTX
// Eight columns are four registers; these name those of 48, 64, 96 and 128 columns. The operands
// that follow are numbered from there on.
#define CONVNET_D(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define CONVNET_D4(j) CONVNET_D(j), CONVNET_D(j + 1), CONVNET_D(j + 2), CONVNET_D(j + 3)
#define CONVNET_D6 CONVNET_D4(0), CONVNET_D(4), CONVNET_D(5)
#define CONVNET_D8 CONVNET_D4(0), CONVNET_D4(4)
#define CONVNET_D12 CONVNET_D8, CONVNET_D4(8)
#define CONVNET_D16 CONVNET_D12, CONVNET_D4(12)
#define CONVNET_NAMES_24                                                                       \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23"
#define CONVNET_NAMES_32 CONVNET_NAMES_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define CONVNET_NAMES_48                                                     \
  CONVNET_NAMES_32                                                           \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, " \
  "%46, %47"
#define CONVNET_NAMES_64                                                     \
  CONVNET_NAMES_48                                                           \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
  "%62, %63"
// `a`: the names of A's registers; then B's descriptor and whether D is added to.
#define CONVNET_WGMMA(n, k, types, more, registers, a, b, accumulate)                      \
  asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %" accumulate                       \
               ", 0;\n"                                                                    \
               "wgmma.mma_async.sync.aligned.m64n" #n "k" #k ".f32." types                 \
               " {" CONVNET_NAMES_##registers "}, {" a "}, %" b ", adds, 1, 1" more ";\n}" \
               : CONVNET_D_##n                                                             \
               : "r"(a_[0]), "r"(a_[1]), "r"(a_[2]), "r"(a_[3]), "l"(b_),                  \
                 "n"(kAccumulate ? 1 : 0))
#define CONVNET_D_48 CONVNET_D6
#define CONVNET_D_64 CONVNET_D8
#define CONVNET_D_96 CONVNET_D12
#define CONVNET_D_128 CONVNET_D16
#define CONVNET_WGMMA_ALL(k, types, more)                                                \
  if constexpr (kEights == 6) {                                                          \
    CONVNET_WGMMA(48, k, types, more, 24, "%24, %25, %26, %27", "28", "29");             \
  } else if constexpr (kEights == 8) {                                                   \
    CONVNET_WGMMA(64, k, types, more, 32, "%32, %33, %34, %35", "36", "37");             \
  } else if constexpr (kEights == 12) {                                                  \
    CONVNET_WGMMA(96, k, types, more, 48, "%48, %49, %50, %51", "52", "53");             \
  } else {                                                                               \
    static_assert(kEights == 16, "wgmma is written out for 48, 64, 96 and 128 columns"); \
    CONVNET_WGMMA(128, k, types, more, 64, "%64, %65, %66, %67", "68", "69");            \
  }
#endif

// 8 k of TF32; the low 13 bits of all operands are ignored. Where not `kAccumulate`, D = A B.
template <bool kAccumulate, int kEights>
__device__ inline void wgmma_tf32(float (&d)[kEights][4], const unsigned (&a_)[4],
                                  std::uint64_t b_) {
#if CONVNET_HOPPER_PTX
  CONVNET_WGMMA_ALL(8, "tf32.tf32", "")
#else
  __trap();
#endif
}

// 16 k of bfloat16.
template <bool kAccumulate, int kEights>
__device__ inline void wgmma_bf16(float (&d)[kEights][4], const unsigned (&a_)[4],
                                  std::uint64_t b_) {
#if CONVNET_HOPPER_PTX
  CONVNET_WGMMA_ALL(16, "bf16.bf16", ", 0")
#else
  __trap();
#endif
}

}  // namespace convnet
