// Vector code without -march: how one binary uses the widest vectors of the machine it runs on.
//
// A function marked CONVNET_CLONES is compiled three times (baseline, AVX2 + FMA, AVX-512) and the
// dynamic loader picks one when the library is loaded. Three rules follow:
//   - Mark the function that holds the inner loop, and call it from the parallel loop: the body of
//     a parallel region, which OpenMP turns into a function of its own, is not cloned.
//   - Whatever the marked function calls must be inlined into it (CONVNET_INLINE), or the baseline
//     version of the callee runs.
//   - Leave vectorising to the compiler: plain loops over contiguous memory, CONVNET_SIMD where it
//     cannot see that iterations are independent.
// The build passes -fno-math-errno (else no vector square root) and -fno-trapping-math (else no
// vector selects). Neither changes a result; NaN, infinities and rounding stay as IEEE 754 says.
#pragma once

#include <cstdlib>  // defines __GLIBC__: the clones need the loader to support IFUNC

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__) && \
    !defined(__SANITIZE_ADDRESS__)
#if __GNUC__ >= 12
#define CONVNET_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define CONVNET_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#endif
#else
#define CONVNET_CLONES
#endif

#if defined(__GNUC__)  // also Clang
#define CONVNET_INLINE inline __attribute__((always_inline))
#define CONVNET_LAMBDA_INLINE __attribute__((always_inline))
#define CONVNET_SIMD _Pragma("omp simd")
// For loops over bytes and floats together: 16 elements a step. The compiler would fill a vector
// with bytes, 64 of them, and leave a row of 50 channels to its scalar tail.
#define CONVNET_SIMD_16 _Pragma("omp simd simdlen(16)")
#elif defined(_MSC_VER)
#define CONVNET_INLINE __forceinline
#define CONVNET_LAMBDA_INLINE
#define CONVNET_SIMD
#define CONVNET_SIMD_16
#else
#define CONVNET_INLINE inline
#define CONVNET_LAMBDA_INLINE
#define CONVNET_SIMD
#define CONVNET_SIMD_16
#endif
