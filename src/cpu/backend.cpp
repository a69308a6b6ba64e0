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

#include "isa.h"
#include "onednn.h"
#include "reduced.h"
#include "tiles.h"

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

#endif

// Kept here and not only in OpenMP, whose setting belongs to the calling thread: an operation that
// another Python thread calls uses as many threads.
std::atomic<int>& threads() {
  static std::atomic<int> count(std::max(1, omp_get_max_threads()));
  return count;
}

// libgomp ends the process when it cannot start a thread, so absurd numbers are refused.
int thread_limit() { return std::max(64, 4 * omp_get_num_procs()); }

// What oneDNN uses for a small product.
std::string product_implementation(Precision precision) {
  using dnnl::memory;
  const bool half = precision == Precision::kBf16 && takes_bfloat16();
  const auto type = half ? memory::data_type::bf16 : memory::data_type::f32;
  const memory::desc square({64, 64}, type, memory::format_tag::ab);
  return dnnl::matmul::primitive_desc(cpu_engine(), square, square, square,
                                      user_scratchpad(precision))
      .impl_info_str();
}

// Which passes of layers of usual sizes compute in `precision`, lower than float32; empty for none. With
// kBf16, of bfloat16 arrays.
std::string reduced_passes(Precision precision) {
  const Storage storage = precision == Precision::kBf16 ? Storage::kBfloat16 : Storage::kFloat32;
  if (!may_reduce(precision, storage)) return "";
  ConvShape conv = conv_shape("precision_description", {32, 27, 27, 96}, {256, 1, 1, 96},
                              Window{1, 1, 0, 0, Rounding::kFloor}, 1);
  conv.storage = storage;
  const DenseShape dense{128, 1024, 1024, storage};
  const std::pair<const char*, Pass> passes[] = {
      {"fprop", Pass::kFprop}, {"dgrad", Pass::kDgrad}, {"wgrad", Pass::kWgrad}};
  const std::string ending = kernel_name("", precision);
  std::string found;
  const auto note = [&](const std::string& layer, const char* pass, const std::string& kernel) {
    if (kernel.size() < ending.size()) return;
    if (kernel.compare(kernel.size() - ending.size(), ending.size(), ending) != 0) return;
    found += (found.empty() ? "" : ", ") + layer + " " + pass;
  };
  for (const auto& [name, pass] : passes) note("conv", name, conv_kernel(conv, pass, precision));
  for (const auto& [name, pass] : passes) note("dense", name, dense_kernel(dense, pass, precision));
  return found;
}

}  // namespace

const char* backend_name() { return "cpu"; }

Memory backend_memory() { return Memory::kHost; }

void grant_memory(const std::vector<MemoryRange>&) {}

void revoke_memory(const char*) {}

int device_count() { return 1; }

int current_device() { return 0; }

void set_current_device(int) {}

int memory_device(const void*) { return 0; }

void wait_for_stream(const char*, Stream, Stream) {}

std::string device_description(int) {
  const std::string model = cpu_model(), isa = vector_isa_name();
  const int count = thread_count();
  std::string text = model.empty() ? "unknown processor" : model;
  text += ", " + std::to_string(count) + (count == 1 ? " thread" : " threads");
  if (!isa.empty()) text += ", " + isa;
  return text;
}

std::string precision_description(Precision precision) {
  if (precision == Precision::kFp32)
    return "float32 accuracy; products by oneDNN " + product_implementation(precision);
  if (precision == Precision::kFfma)
    return "float32 multiply-adds; by oneDNN " + product_implementation(precision);
  const bool half = precision == Precision::kBf16;
  const std::string name = half ? "bfloat16" : "TF32", stored = half ? "stored as bfloat16; " : "";
  const std::string passes = reduced_passes(precision);
  if (passes.empty()) {
    return stored + "products as fp32: this processor has no unit for those of " + name;
  }
  const std::string by = half && tiles_suit() ? " by AMX tiles and oneDNN " : " by oneDNN ";
  return stored + name + by + product_implementation(precision) + " for " + passes +
         ", by shape (conv_kernel, dense_kernel); the rest in float32";
}

std::string build_description() {
  const dnnl_version_t* version = dnnl_version();
  const std::string isa = onednn_isa_name();
  return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch) + (isa.empty() ? "" : " for " + isa) + ", OpenMP";
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

TileChoice tile_choice(const ConvShape&, Pass, Precision) { no_tiles("tile_choice"); }
std::vector<std::string> tiles_of(Pass, Precision) { no_tiles("tiles_of"); }
void set_tile_choices(const std::vector<TileChoice>&) { no_tiles("set_tile_choices"); }
void reset_tile_choices() { no_tiles("reset_tile_choices"); }

}  // namespace convnet
