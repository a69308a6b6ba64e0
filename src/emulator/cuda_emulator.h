// CUDA C++ as far as kernels of this repository use it, for a host compiler.
//
// src/device.h includes this in place of cuda_runtime.h when CONVNET_EMULATOR is defined. Here is
// the language: qualifiers, threadIdx and its like, barriers, warp operations, atomics. Behind it:
//   cuda_types.h cuda_math.h   float4 and its like; the math functions
//   cudart.h                   cudaMalloc, cudaSetDevice ...: streams and events are immediate
//   launch.h                   a grid's blocks over OS threads; the order in which threads run
//   block.h fiber.h            a block's threads as fibers; barriers, divergence, deadlock
//   async_copy.cpp warp.cpp    cp.async; shuffles and votes
//   memory.h                   shared arrays, logical devices
//   fault.h                    segmentation faults become errors of the launch
//
// Environment, read at each launch:
//   CONVNET_EMULATOR_ORDER     forward (default), reverse or shuffle:SEED
//   CONVNET_EMULATOR_THREADS   OS threads (default: as many as the machine has, at most 16)
//   CONVNET_EMULATOR_DEVICES   logical devices (default 2)
//
// What does not exist here on purpose: __shared__ (write CONVNET_SHARED), <<<>>> (call launch()),
// __activemask(), spinning on another block's writes, atomics on floats. Not modelled: bank
// conflicts, weak memory order between blocks, register limits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "block.h"
#include "cuda_types.h"
#include "cudart.h"
#include "launch.h"
#include "memory.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

#define threadIdx (::convnet::emulator::current->index)
#define blockIdx (::convnet::emulator::current->block->index)
#define blockDim (::convnet::emulator::current->block->launch->block)
#define gridDim (::convnet::emulator::current->block->launch->grid)
constexpr int warpSize = 32;

// ---- barriers ----------------------------------------------------------------------------------

#define CONVNET_HERE ::convnet::emulator::CallSite where = ::convnet::emulator::CallSite::here()

inline void __syncthreads(CONVNET_HERE) {
  convnet::emulator::current->block->barrier("__syncthreads", 0, where);
}
inline int __syncthreads_count(int predicate, CONVNET_HERE) {
  return convnet::emulator::current->block->barrier("__syncthreads_count", predicate, where);
}
inline int __syncthreads_or(int predicate, CONVNET_HERE) {
  return convnet::emulator::current->block->barrier("__syncthreads_or", predicate, where) != 0;
}
inline int __syncthreads_and(int predicate, CONVNET_HERE) {
  return convnet::emulator::current->block->barrier("__syncthreads_and", !predicate, where) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, CONVNET_HERE) {
  convnet::emulator::current->block->warp_operation(
      "__syncwarp", mask, false, nullptr, [](void* const*, unsigned) {}, where);
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// ---- warp operations ---------------------------------------------------------------------------

namespace convnet::emulator {

// Returns what lane `source` passed; poison where that lane does not take part.
std::uint64_t shuffle(const char* operation, unsigned mask, std::uint64_t value, int source,
                      CallSite where);
unsigned ballot(const char* operation, unsigned mask, bool predicate, CallSite where);

inline int lane() { return current->number % kWarpSize; }

template <typename T>
T shuffle_value(const char* operation, unsigned mask, T value, int source, CallSite where) {
  static_assert(sizeof(T) <= 8, "shuffles move up to 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle(operation, mask, bits, source, where);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace convnet::emulator

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CONVNET_HERE) {
  const int lane = convnet::emulator::lane();
  const int from = (lane & ~(width - 1)) | (source & (width - 1));
  return convnet::emulator::shuffle_value("__shfl_sync", mask, value, from, where);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CONVNET_HERE) {
  const int lane = convnet::emulator::lane();
  const int in_part = lane & (width - 1);
  const int from = in_part >= static_cast<int>(delta) ? lane - static_cast<int>(delta) : lane;
  return convnet::emulator::shuffle_value("__shfl_up_sync", mask, value, from, where);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CONVNET_HERE) {
  const int lane = convnet::emulator::lane();
  const int in_part = lane & (width - 1);
  const int from =
      in_part + static_cast<int>(delta) < width ? lane + static_cast<int>(delta) : lane;
  return convnet::emulator::shuffle_value("__shfl_down_sync", mask, value, from, where);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CONVNET_HERE) {
  const int lane = convnet::emulator::lane();
  int from = lane ^ lanes;
  if (from / width > lane / width) from = lane;  // a part may read from itself and parts below
  return convnet::emulator::shuffle_value("__shfl_xor_sync", mask, value, from, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CONVNET_HERE) {
  return convnet::emulator::ballot("__ballot_sync", mask, predicate != 0, where);
}
inline int __any_sync(unsigned mask, int predicate, CONVNET_HERE) {
  return convnet::emulator::ballot("__any_sync", mask, predicate != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CONVNET_HERE) {
  return convnet::emulator::ballot("__all_sync", mask, predicate == 0, where) == 0;
}

// ---- shared memory -----------------------------------------------------------------------------

namespace convnet::emulator {

template <typename T>
T& shared_array(const void* key, const char* name, CallSite where) {
  return *static_cast<T*>(current->block->shared(key, name, sizeof(T), where));
}

template <typename T>
T* dynamic_shared_array(const char* name, CallSite where) {
  const std::size_t bytes = current->block->launch->dynamic_shared_bytes;
  if (bytes == 0) fail(where, "the launch gave no dynamic shared memory for %s", name);
  return static_cast<T*>(current->block->shared(nullptr, name, bytes, where));
}

}  // namespace convnet::emulator

// ---- atomics on integers -----------------------------------------------------------------------

#define CONVNET_ATOMIC(T, name, expression)                                                       \
  inline T name(T* address, T value) {                                                            \
    return convnet::emulator::atomic_update(address, [value](T old) -> T { return expression; }); \
  }

namespace convnet::emulator {
template <typename T, typename Update>
T atomic_update(T* address, Update update) {
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(address, &old, update(old), false, __ATOMIC_SEQ_CST,
                                      __ATOMIC_RELAXED)) {
  }
  return old;
}
}  // namespace convnet::emulator

#define CONVNET_ATOMICS(T)                                                          \
  CONVNET_ATOMIC(T, atomicAdd, static_cast<T>(old + value))                         \
  CONVNET_ATOMIC(T, atomicMax, old > value ? old : value)                           \
  CONVNET_ATOMIC(T, atomicMin, old < value ? old : value)                           \
  CONVNET_ATOMIC(T, atomicAnd, old& value)                                          \
  CONVNET_ATOMIC(T, atomicOr, old | value)                                          \
  CONVNET_ATOMIC(T, atomicXor, old ^ value)                                         \
  CONVNET_ATOMIC(T, atomicExch, (static_cast<void>(old), value))                    \
  inline T atomicCAS(T* address, T compare, T value) {                              \
    return convnet::emulator::atomic_update(                                        \
        address, [compare, value](T old) { return old == compare ? value : old; }); \
  }
CONVNET_ATOMICS(int)
CONVNET_ATOMICS(unsigned)
CONVNET_ATOMICS(unsigned long long)
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return convnet::emulator::atomic_update(
      address, [limit](unsigned old) { return old >= limit ? 0u : old + 1; });
}
#undef CONVNET_ATOMICS
#undef CONVNET_ATOMIC

// ---- memory ------------------------------------------------------------------------------------

template <typename T>
inline T __ldg(const T* address) {
  return *address;
}
template <typename T>
inline T __ldcs(const T* address) {
  return *address;
}
template <typename T>
inline T __ldcg(const T* address) {
  return *address;
}
template <typename T>
inline void __stcs(T* address, T value) {
  *address = value;
}
template <typename T>
inline void __stcg(T* address, T value) {
  *address = value;
}

inline void __trap(CONVNET_HERE) { convnet::emulator::fail(where, "__trap"); }

// ---- arithmetic --------------------------------------------------------------------------------

#include "cuda_math.h"
