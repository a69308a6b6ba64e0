// What kernels are written with. With device_mma.h, its second half, and device_hopper.h, for those
// who need it, the only file with <<<>>>, PTX or a branch for the emulator.
//
// The same .cu file is compiled by nvcc, and by g++ with -DCONVNET_EMULATOR against src/emulator/,
// which runs a block's threads as fibers on a CPU and checks what they do.
//
// How to write a kernel here
//   __global__ void __launch_bounds__(256) row_sum_kernel(const float* x, int columns, float* y) {
//     CONVNET_SHARED(partial, float[8]);                     // not __shared__
//     float sum = 0.0f;
//     for (int c = threadIdx.x; c < columns; c += 256) sum += x[blockIdx.x * columns + c];
//     for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kFullWarp, sum, lanes);
//     if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
//     __syncthreads();
//     if (threadIdx.x == 0) { ... }
//   }
//   void row_sum(..., Stream stream) {
//     launch("row_sum", row_sum_kernel, dim3(rows), dim3(256), 0, stream, x, columns, y);
//   }
// - CUDA's own names for all the rest: threadIdx, __syncthreads() and _count/_and/_or, __syncwarp,
//   __shfl_*_sync, __ballot/any/all_sync, integer atomics, float4, __ldg, fmaf, rsqrtf, __expf ...
// - Every thread of a block must reach each barrier: no `return` before one.
// - Data passed between lanes through shared memory needs __syncwarp(), also inside one warp.
// - Write `sum += a * b`: nvcc fuses it, and fmaf() is slow on hosts without the instruction.
// - 128-bit accesses go through load4/store4, which check alignment in the emulator.
// - No static or global variables, no float atomics, no waiting for other blocks.
// Run it in the emulator under CONVNET_EMULATOR_ORDER=forward, reverse and shuffle:1: the bits must
// be equal. CONVNET_SANITIZE=address has accesses out of bounds reported with line and thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#ifdef CONVNET_EMULATOR
#include "emulator/cuda_emulator.h"
#else
#include <cuda_runtime.h>
#endif

namespace convnet {

constexpr unsigned kFullWarp = 0xffffffffu;

// ---- shared memory -----------------------------------------------------------------------------
//   CONVNET_SHARED(name, type);          static; for example CONVNET_SHARED(tile, float[8][128])
//   CONVNET_DYNAMIC_SHARED(name, type);  `type* name`: the bytes that launch() was given
// Both are aligned to 16 bytes at least, and hold garbage (in the emulator: NaN) at first.

template <typename T>
using SharedType = T;

#ifdef CONVNET_EMULATOR
#define CONVNET_SHARED(name, ...)                                                     \
  auto& name = ::convnet::emulator::shared_array<::convnet::SharedType<__VA_ARGS__>>( \
      [] {                                                                            \
        static const char declaration = 0;                                            \
        return &declaration;                                                          \
      }(),                                                                            \
      #name, ::convnet::emulator::CallSite::here())
#define CONVNET_DYNAMIC_SHARED(name, ...)                                           \
  __VA_ARGS__* const name = ::convnet::emulator::dynamic_shared_array<__VA_ARGS__>( \
      #name, ::convnet::emulator::CallSite::here())
// Ends the parameter list of functions below that may fail: the caller's file and line.
#define CONVNET_CALLER , CONVNET_ONLY_CALLER
#define CONVNET_ONLY_CALLER \
  ::convnet::emulator::CallSite where = ::convnet::emulator::CallSite::here()
#else
#define CONVNET_SHARED(name, ...) __shared__ __align__(16)::convnet::SharedType<__VA_ARGS__> name
#define CONVNET_DYNAMIC_SHARED(name, ...)                                  \
  extern __shared__ __align__(128) unsigned char convnet_dynamic_shared[]; \
  __VA_ARGS__* const name = reinterpret_cast<__VA_ARGS__*>(convnet_dynamic_shared)
#define CONVNET_CALLER
#define CONVNET_ONLY_CALLER
#endif

// ---- launch ------------------------------------------------------------------------------------

// An operation's name, with the file and line of the launch.
struct OpName {
  const char* name;
  const char* file;
  int line;
  OpName(const char* name_, const char* file_ = __builtin_FILE(), int line_ = __builtin_LINE())
      : name(name_), file(file_), line(line_) {}
};

// Throws std::runtime_error when `error` is not cudaSuccess: "conv_fprop: conv.cu:12: what: why".
inline void check_cuda(cudaError_t error, const char* what, OpName op) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(op.name) + ": " + op.file + ":" + std::to_string(op.line) +
                           ": " + what + ": " + cudaGetErrorString(error) + " (" +
                           cudaGetErrorName(error) + ")");
}

// What the driver says of a kernel's code on the current device.
struct KernelCode {
  int ptx_version;     // the architecture it was compiled for, such as 80
  int binary_version;  // that of the machine code: newer where the driver made it from PTX
  std::size_t static_shared_bytes;  // 0 in the emulator, which counts them while a block runs
  std::size_t most_shared_bytes;    // that the device gives a block, static and dynamic together
};

// In launch_limits.cu. The driver is asked once for each kernel and device.
const KernelCode& kernel_code(OpName op, const void* kernel);

// Lets blocks of the kernel have so many bytes, which by themselves they may only have up to 48 KB,
// the static ones included. Throws std::runtime_error when the device has not that many.
void allow_shared_memory(OpName op, const void* kernel, std::size_t dynamic_bytes);

// Throws std::runtime_error with all that the device may have refused when `error`, which is of the
// launch, is not cudaSuccess.
void check_launched(cudaError_t error, OpName op, const void* kernel, dim3 grid, dim3 block,
                    std::size_t dynamic_bytes);

// Queues kernel<<<grid, block, dynamic_shared_bytes, stream>>>(arguments...) on the current device.
// `stream` is a cudaStream_t or null. Throws std::runtime_error, beginning with the op's name, when
// the launch fails; in the emulator also for everything it finds wrong while the kernel runs.
template <typename... Parameters, typename... Arguments>
void launch(OpName op, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            std::size_t dynamic_shared_bytes, void* stream, Arguments&&... arguments) {
  const void* code = reinterpret_cast<const void*>(kernel);
  if (dynamic_shared_bytes != 0) allow_shared_memory(op, code, dynamic_shared_bytes);
#ifdef CONVNET_EMULATOR
  (void)stream;
  emulator::launch_kernel(op.name, emulator::CallSite{op.file, op.line}, kernel, grid, block,
                          dynamic_shared_bytes, std::forward<Arguments>(arguments)...);
#else
  kernel<<<grid, block, dynamic_shared_bytes, static_cast<cudaStream_t>(stream)>>>(
      std::forward<Arguments>(arguments)...);
  check_launched(cudaGetLastError(), op, code, grid, block, dynamic_shared_bytes);
#endif
}

// ---- 128-bit accesses --------------------------------------------------------------------------

// Whether a pointer may be used with load4/store4.
template <typename T>
__device__ __host__ inline bool aligned16(const T* pointer) {
  return (reinterpret_cast<std::uintptr_t>(pointer) & 15) == 0;
}

#ifdef CONVNET_EMULATOR
#define CONVNET_CHECK_ALIGNED(pointer)                                                \
  if (!aligned16(pointer)) {                                                          \
    emulator::fail(where, "misaligned 128-bit access at %p", (const void*)(pointer)); \
  }
#else
#define CONVNET_CHECK_ALIGNED(pointer)
#endif

__device__ inline float4 load4(const float* pointer CONVNET_CALLER) {
  CONVNET_CHECK_ALIGNED(pointer)
  return *reinterpret_cast<const float4*>(pointer);
}

// Through the read-only cache: for memory that no thread writes while the kernel runs.
__device__ inline float4 load4_readonly(const float* pointer CONVNET_CALLER) {
  CONVNET_CHECK_ALIGNED(pointer)
  return __ldg(reinterpret_cast<const float4*>(pointer));
}

__device__ inline void store4(float* pointer, float4 value CONVNET_CALLER) {
  CONVNET_CHECK_ALIGNED(pointer)
  *reinterpret_cast<float4*>(pointer) = value;
}

// ---- arithmetic --------------------------------------------------------------------------------

// 1 / sqrt(x) to 22 bits, for x that is not denormal: one instruction, where rsqrtf() takes five.
__device__ inline float inverse_root_22(float x) {
#ifdef CONVNET_EMULATOR
  return 1.0f / std::sqrt(x);
#else
  float result;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#endif
}

// ---- asynchronous copies -----------------------------------------------------------------------
// A thread's copies since its last commit form a group; cp_async_wait<n>() waits for all its groups
// but the newest n. Other threads see the data after a barrier that follows the wait. Devices
// before sm_80 copy at once.

// Copies `bytes` (4, 8 or 16, both addresses aligned to that) from global to shared memory; where
// `predicate` is false, writes zeros and does not read `source`. 16 bytes pass L1 by, unless
// `through_l1`: for what this block will read again soon, and no kernel is writing.
template <int bytes, bool through_l1 = false>
__device__ inline void cp_async(void* shared_destination, const void* source,
                                bool predicate CONVNET_CALLER) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp_async copies 4, 8 or 16 bytes");
#if defined(CONVNET_EMULATOR)
  emulator::cp_async(shared_destination, source, bytes, predicate, where);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
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
#if defined(CONVNET_EMULATOR)
  emulator::cp_async_commit();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int groups_left>
__device__ inline void cp_async_wait() {
#if defined(CONVNET_EMULATOR)
  emulator::cp_async_wait(groups_left);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
#endif
}

}  // namespace convnet

#include "device_mma.h"
