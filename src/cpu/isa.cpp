// What the processor has, and what the environment leaves of it.
#include "isa.h"

#include <algorithm>
#include <cstdlib>
#include <oneapi/dnnl/dnnl.hpp>

#include "ops.h"

namespace convnet {
namespace {

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)

// What simd.h and vector_kernels.cpp compile for.
Isa widest() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  return avx512 ? Isa::kAvx512 : (avx2 ? Isa::kAvx2 : Isa::kBaseline);
}

#else

Isa widest() { return Isa::kBaseline; }

#endif

struct Limit {
  const char* name;
  Isa vectors;
  dnnl::cpu_isa onednn;
};

constexpr Limit kLimits[] = {{"sse2", Isa::kBaseline, dnnl::cpu_isa::sse41},
                             {"avx2", Isa::kAvx2, dnnl::cpu_isa::avx2},
                             {"avx512", Isa::kAvx512, dnnl::cpu_isa::avx512_core},
                             {"amx", Isa::kAvx512, dnnl::cpu_isa::isa_default}};

Isa& chosen() {
  static Isa isa = widest();
  return isa;
}

bool is_set(const char* variable) { return std::getenv(variable) != nullptr; }

}  // namespace

void start_backend() {
  const char* text = std::getenv("CONVNET_CPU_ISA");
  if (text == nullptr) return;
  const Limit* limit = std::find_if(std::begin(kLimits), std::end(kLimits), [&](const Limit& each) {
    return std::string(text) == each.name;
  });
  if (limit == std::end(kLimits)) {
    throw std::invalid_argument(
        std::string("CONVNET_CPU_ISA: expected sse2, avx2, avx512 or amx, got ") + text);
  }
  chosen() = std::min(widest(), limit->vectors);
  if (limit->onednn == dnnl::cpu_isa::isa_default || is_set("ONEDNN_MAX_CPU_ISA") ||
      is_set("DNNL_MAX_CPU_ISA")) {
    return;
  }
  // oneDNN takes it once, before it has made anything.
  static const dnnl::status status = dnnl::set_max_cpu_isa(limit->onednn);
  if (status != dnnl::status::success) {
    throw std::runtime_error("CONVNET_CPU_ISA: this oneDNN takes no limit");
  }
}

Isa vector_isa() { return chosen(); }

std::string vector_isa_name() {
#if defined(__x86_64__)
  const Isa isa = vector_isa();
  return isa == Isa::kAvx512 ? "AVX-512" : (isa == Isa::kAvx2 ? "AVX2" : "SSE2");
#elif defined(__aarch64__)
  return "NEON";
#else
  return "";
#endif
}

namespace {
// Values of dnnl::cpu_isa hold a bit for each extension, those of the sets below included.
bool onednn_has(dnnl::cpu_isa isa) {
  const int all = static_cast<int>(dnnl::get_effective_cpu_isa()), wanted = static_cast<int>(isa);
  return (all & wanted) == wanted;
}
}  // namespace

bool has_amx() { return onednn_has(dnnl::cpu_isa::avx512_core_amx); }

bool has_avx512_bf16() { return onednn_has(dnnl::cpu_isa::avx512_core_bf16); }

std::string onednn_isa_name() {
  if (has_amx()) return "AVX-512 with AMX";
  if (onednn_has(dnnl::cpu_isa::avx512_core)) return "AVX-512";
  if (onednn_has(dnnl::cpu_isa::avx2)) return "AVX2";
  if (onednn_has(dnnl::cpu_isa::avx)) return "AVX";
  return onednn_has(dnnl::cpu_isa::sse41) ? "SSE4.1" : "";
}

}  // namespace convnet
