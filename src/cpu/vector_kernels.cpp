// vector_kernels.h for each instruction set, and the choice between them.
#include "vectors.h"

#include "elements.h"

#if defined(__GNUC__) && !defined(__clang__)
#define CONVNET_HAS_VECTORS
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <utility>

#include "isa.h"
#include "pool.h"

#if defined(__x86_64__)

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2")
#define CONVNET_TARGET avx512
#define CONVNET_LANES 16
#include "vector_kernels.h"
#undef CONVNET_TARGET
#undef CONVNET_LANES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2")
#define CONVNET_TARGET avx2
#define CONVNET_LANES 8
#include "vector_kernels.h"
#undef CONVNET_TARGET
#undef CONVNET_LANES
#pragma GCC pop_options

#endif

#define CONVNET_TARGET baseline
#define CONVNET_LANES 4
#include "vector_kernels.h"
#undef CONVNET_TARGET
#undef CONVNET_LANES

#endif

namespace convnet {

template <class T>
const VectorKernels<T>* kernels_for(int channels, bool whole) {
#if defined(CONVNET_HAS_VECTORS)
  const auto fits = [&](const VectorKernels<T>& kernels) {
    return whole ? channels % kernels.lanes == 0 : channels >= kernels.lanes;
  };
#if defined(__x86_64__)
  const Isa isa = vector_isa();
  if (isa == Isa::kAvx512 && fits(avx512::kKernels<T>)) return &avx512::kKernels<T>;
  if (isa >= Isa::kAvx2 && fits(avx2::kKernels<T>)) return &avx2::kKernels<T>;
#endif
  if (fits(baseline::kKernels<T>)) return &baseline::kKernels<T>;
#endif
  return nullptr;
}

CONVNET_FOR_BOTH_TYPES(kernels_for);

}  // namespace convnet
