// Vector code without -march: how one binary uses the widest vectors of the machine it runs on.
//
// vectorized<function>(arguments...) calls a version of `function` compiled for AVX-512, AVX2 or
// the baseline, whichever vector_isa() says. Three rules follow:
//   - The function holds the inner loop, and is called so from the parallel loop: the body of
//     a parallel region, which OpenMP turns into a function of its own, is compiled once.
//   - It is CONVNET_INLINE, and so is whatever it calls, or the baseline version of that runs.
//   - Leave vectorising to the compiler: plain loops over contiguous memory, CONVNET_SIMD where it
//     cannot see that iterations are independent.
// The build passes -fno-math-errno (else no vector square root) and -fno-trapping-math (else no
// vector selects). Neither changes a result; NaN, infinities and rounding stay as IEEE 754 says.
#pragma once

#include "isa.h"

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define CONVNET_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2")))
#define CONVNET_AVX2 __attribute__((target("avx2,fma,bmi,bmi2")))
#else
#define CONVNET_AVX512
#define CONVNET_AVX2
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

namespace convnet {

template <auto function, class = decltype(function)>
struct Vectorized;

template <auto function, class Result, class... Arguments>
struct Vectorized<function, Result (*)(Arguments...)> {
  Result operator()(Arguments... arguments) const {
    switch (vector_isa()) {
      case Isa::kAvx512:
        return avx512(arguments...);
      case Isa::kAvx2:
        return avx2(arguments...);
      default:
        return function(arguments...);
    }
  }

 private:
  CONVNET_AVX512 static Result avx512(Arguments... arguments) { return function(arguments...); }
  CONVNET_AVX2 static Result avx2(Arguments... arguments) { return function(arguments...); }
};

template <auto function>
inline constexpr Vectorized<function> vectorized{};

}  // namespace convnet
