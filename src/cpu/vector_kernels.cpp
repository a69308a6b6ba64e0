// vector_kernels.h for each instruction set, and the choice between them.
#include "vectors.h"

#if defined(__GNUC__) && !defined(__clang__)
#define CONVNET_HAS_VECTORS
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <cstdlib>
#include <utility>

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
namespace {

#if defined(CONVNET_HAS_VECTORS)

// Floats in the longest vectors that may be used.
int longest() {
  int lanes = 4;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  lanes = avx512 ? 16 : (avx2 ? 8 : 4);
#endif
  const char* limit = std::getenv("CONVNET_VECTOR_LANES");
  return limit == nullptr ? lanes : std::min(lanes, std::atoi(limit));
}

#endif

}  // namespace

const VectorKernels* kernels_for(int channels, bool whole) {
#if defined(CONVNET_HAS_VECTORS)
  static const int limit = longest();
  const auto fits = [&](const VectorKernels& kernels) {
    return kernels.lanes <= limit &&
           (whole ? channels % kernels.lanes == 0 : channels >= kernels.lanes);
  };
#if defined(__x86_64__)
  if (fits(avx512::kKernels)) return &avx512::kKernels;
  if (fits(avx2::kKernels)) return &avx2::kKernels;
#endif
  if (fits(baseline::kKernels)) return &baseline::kKernels;
#endif
  return nullptr;
}

}  // namespace convnet
