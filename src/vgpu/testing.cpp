// What tests/vgpu calls: PTX text in, bytes out, without a CUDA program around it. The functions
// are exported from the shared library for ctypes (tests/support/ptx.py).
#include <cuda.h>

#include <cstdio>
#include <cstring>

#include "embedded.h"
#include "vgpu/counters/counters.h"
#include "vgpu/vgpu.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

int report(const std::string& what, char* message, std::size_t size, int code) {
  std::snprintf(message, size, "%s", what.c_str());
  return code;
}

}  // namespace

// Device memory, filled with 0xff.
EXPORT std::uint64_t vgpu_test_alloc(std::uint64_t bytes) { return vgpu::memory_alloc(bytes, 0); }
EXPORT void vgpu_test_free(std::uint64_t address) { vgpu::memory_free(address); }
EXPORT void vgpu_test_write(std::uint64_t to, const void* from, std::uint64_t bytes) {
  std::memcpy(vgpu::memory_host(to), from, bytes);
}
EXPORT void vgpu_test_read(void* to, std::uint64_t from, std::uint64_t bytes) {
  std::memcpy(to, vgpu::memory_host(from), bytes);
}

// Runs a kernel of a PTX text. Returns 0, or a CUresult and the message of what went wrong.
EXPORT int vgpu_test_run(const char* text, const char* name, const unsigned* grid,
                         const unsigned* block, unsigned dynamic_shared, const void* params,
                         std::size_t params_bytes, char* message, std::size_t message_size) {
  std::string error;
  const auto module = vgpu::ptx_module(text, 0, &error);
  if (!error.empty()) return report(error, message, message_size, CUDA_ERROR_INVALID_PTX);
  const auto kernel = module->kernels.find(name);
  if (kernel == module->kernels.end())
    return report("no such kernel", message, message_size, CUDA_ERROR_NOT_FOUND);
  if (!vgpu::ptx_decode(*module, kernel->second, &error))
    return report(error, message, message_size, CUDA_ERROR_INVALID_PTX);
  vgpu::Launch launch;
  for (int k = 0; k < 3; ++k) launch.grid[k] = grid[k], launch.block[k] = block[k];
  const int* const cluster = kernel->second.required_cluster;
  launch.explicit_cluster = cluster[0] != 0;
  for (int k = 0; k < 3 && launch.explicit_cluster; ++k) launch.cluster[k] = cluster[k];
  launch.dynamic_shared = dynamic_shared;
  launch.peers = 1;
  launch.params.resize(kernel->second.param_bytes);
  const std::size_t bytes = std::min(params_bytes, launch.params.size());
  if (bytes) std::memcpy(launch.params.data(), params, bytes);
  const vgpu::Fault fault = vgpu::exec_launch(*module, kernel->second, launch);
  return report(fault.text, message, message_size, fault.code);
}

// Counts of the launches since vgpu_test_count(), as JSON; valid until the next call.
EXPORT void vgpu_test_count() { vgpu::counters_start(); }
EXPORT const char* vgpu_test_counts() {
  static std::string text;
  vgpu::counters_stop();
  text = vgpu::counters_json();
  return text.c_str();
}

// A tensor map of 32-bit floats, as cuTensorMapEncodeTiled makes it.
EXPORT int vgpu_test_tensor_map(void* map, unsigned rank, std::uint64_t address,
                                const std::uint64_t* sizes, const std::uint64_t* strides,
                                const unsigned* box, const unsigned* steps, int swizzle) {
  alignas(64) CUtensorMap made;
  const CUresult code = cuTensorMapEncodeTiled(
      &made, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, rank, reinterpret_cast<void*>(address),
      reinterpret_cast<const cuuint64_t*>(sizes), reinterpret_cast<const cuuint64_t*>(strides), box,
      steps, CU_TENSOR_MAP_INTERLEAVE_NONE, static_cast<CUtensorMapSwizzle>(swizzle),
      CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code == CUDA_SUCCESS) std::memcpy(map, &made, sizeof made);
  return code;
}

// An array of the host as device memory, as convnet._vgpu has them.
EXPORT void vgpu_test_register(const void* base, std::uint64_t bytes) {
  vgpu::memory_register(base, bytes);
}
EXPORT void vgpu_test_unregister(const void* base, std::uint64_t bytes) {
  vgpu::memory_unregister(base, bytes);
}
EXPORT void vgpu_test_finish(char* message, std::size_t message_size) {
  report(vgpu::finish(), message, message_size, 0);
}
