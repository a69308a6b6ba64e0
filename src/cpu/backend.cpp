// What the host implementation is and how many threads it uses.
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <string>

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#include <cpuid.h>
#endif

#include "onednn.h"

namespace convnet {
namespace {

std::string trimmed(const std::string& text) {
  const char* blanks = " \t\n";
  const std::size_t first = text.find_first_not_of(blanks);
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))

// The brand string is held in three extended leaves of CPUID, four registers of four bytes each.
std::string cpu_model() {
  constexpr unsigned kFirst = 0x80000002, kLast = 0x80000004;
  if (__get_cpuid_max(0x80000000, nullptr) < kLast) return "";
  std::string brand;
  for (unsigned leaf = kFirst; leaf <= kLast; ++leaf) {
    unsigned registers[4] = {};
    __get_cpuid(leaf, &registers[0], &registers[1], &registers[2], &registers[3]);
    brand.append(reinterpret_cast<const char*>(registers), sizeof registers);
  }
  return trimmed(brand.substr(0, brand.find('\0')));
}

std::string vector_isa() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return "AVX-512";
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "AVX2";
  return "SSE2";
}

#else

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(':');
    if (colon != std::string::npos && line.compare(0, 10, "model name") == 0) {
      return trimmed(line.substr(colon + 1));
    }
  }
  return "";
}

std::string vector_isa() {
#if defined(__aarch64__)
  return "NEON";
#else
  return "";
#endif
}

#endif

// Kept here and not only in OpenMP, whose setting belongs to the calling thread: an operation that
// another Python thread calls uses as many threads.
std::atomic<int>& threads() {
  static std::atomic<int> count(std::max(1, omp_get_max_threads()));
  return count;
}

// libgomp ends the process when it cannot start a thread, so absurd numbers are refused.
int thread_limit() { return std::max(64, 4 * omp_get_num_procs()); }

// What oneDNN uses for a small product: another implementation, if it has a unit for `math`.
std::string product_implementation(Math math) {
  using dnnl::memory;
  const memory::desc square({64, 64}, memory::data_type::f32, memory::format_tag::ab);
  return dnnl::matmul::primitive_desc(cpu_engine(), square, square, square, user_scratchpad(math))
      .impl_info_str();
}

}  // namespace

const char* backend_name() { return "cpu"; }

Memory backend_memory() { return Memory::kHost; }

int device_count() { return 1; }

int current_device() { return 0; }

void set_current_device(int) {}

int memory_device(const void*) { return 0; }

void wait_for_stream(const char*, Stream, Stream) {}

std::string device_description(int) {
  const std::string model = cpu_model(), isa = vector_isa();
  const int count = thread_count();
  std::string text = model.empty() ? "unknown processor" : model;
  text += ", " + std::to_string(count) + (count == 1 ? " thread" : " threads");
  if (!isa.empty()) text += ", " + isa;
  return text;
}

bool has_unit(Math math) {
  static const bool bf16 =
      product_implementation(Math::kBf16) != product_implementation(Math::kFp32);
  static const bool tf32 =
      product_implementation(Math::kTf32) != product_implementation(Math::kFp32);
  return math == Math::kBf16 ? bf16 : math == Math::kTf32 && tf32;
}

std::string math_description(Math math) {
  if (math == Math::kFp32)
    return "float32 accuracy; products by oneDNN " + product_implementation(math);
  if (math == Math::kFfma)
    return "float32 multiply-adds; by oneDNN " + product_implementation(math);
  if (has_unit(math)) return "by oneDNN " + product_implementation(math);
  return std::string("as fp32: this processor has no unit for ") +
         (math == Math::kTf32 ? "TF32" : "bfloat16 products of float32 arrays");
}

std::string build_description() {
  const dnnl_version_t* version = dnnl_version();
  return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch) + ", OpenMP";
}

int thread_count() { return threads().load(std::memory_order_relaxed); }

void set_thread_count(int count) {
  if (count < 1 || count > thread_limit()) {
    fail("set_thread_count", "threads", "1 to " + std::to_string(thread_limit()),
         std::to_string(count));
  }
  threads().store(count, std::memory_order_relaxed);
  omp_set_num_threads(count);  // for oneDNN
}

namespace {
[[noreturn]] void no_tiles(const std::string& op) {
  throw std::invalid_argument(op + ": the cpu backend's products have no tiles to choose");
}
}  // namespace

TileChoice tile_choice(const ConvShape&, Pass, Math) { no_tiles("tile_choice"); }
std::vector<std::string> tiles_of(Pass, Math) { no_tiles("tiles_of"); }
void set_tile_choices(const std::vector<TileChoice>&) { no_tiles("set_tile_choices"); }
void reset_tile_choices() { no_tiles("reset_tile_choices"); }

}  // namespace convnet
