// What convnet._vgpu is: the CUDA kernels on the virtual GPU, working on arrays of the host.
//
// An operation is granted the memory of its arrays, which is device memory while it runs: a kernel
// that reaches anything else is stopped. All logical devices (vgpu:0, vgpu:1) work on device 0.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "ops.h"
#include "vgpu/api/register_table.h"
#include "vgpu/embedded.h"
#include "vgpu/settings.h"

namespace convnet {
namespace {

thread_local std::vector<MemoryRange> granted;

void check(cudaError_t error, const char* op, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  throw std::runtime_error(std::string(op) + ": " + what + ": " + cudaGetErrorString(error));
}

}  // namespace

// The virtual GPU has as many devices as there are logical ones, so that these may name each other.
void start_backend() {
  constexpr char kVariable[] = "VGPU_DEVICES";
  const bool asked = std::getenv(kVariable) != nullptr;
  if (!asked) setenv(kVariable, std::to_string(device_count()).c_str(), 1);
  int devices = 0;
  check(cudaGetDeviceCount(&devices), "start_backend", "cudaGetDeviceCount");  // reads it, once
  if (!asked) unsetenv(kVariable);
}

const char* backend_name() { return "vgpu"; }

Memory backend_memory() { return Memory::kGranted; }

void grant_memory(const std::vector<MemoryRange>& ranges) {
  for (const MemoryRange& range : ranges) {
    if (range.bytes != 0) vgpu::memory_register(range.data, range.bytes);
  }
  granted = ranges;
}

void revoke_memory(const char* op) {
  const std::string fault = vgpu::finish();
  for (const MemoryRange& range : granted) {
    if (range.bytes != 0) vgpu::memory_unregister(range.data, range.bytes);
  }
  granted.clear();
  if (!fault.empty()) throw std::runtime_error(std::string(op) + ": " + fault);
}

int device_count() { return 2; }

int current_device() { return 0; }

void set_current_device(int) {}

int memory_device(const void*) { return 0; }

void wait_for_stream(const char*, Stream, Stream) {}

std::string device_description(int) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "device_description", "cudaGetDeviceProperties");
  const int threads = thread_count();
  return "CUDA kernels on a virtual GPU, sm_" + std::to_string(properties.major) +
         std::to_string(properties.minor) + ", " + std::to_string(threads) +
         (threads == 1 ? " thread" : " threads") + ", registers " +
         (vgpu::has_register_table() ? "checked" : "unchecked");
}

std::string build_description() { return CONVNET_VGPU_BUILD; }

int thread_count() { return vgpu::env("VGPU_THREADS", 1); }

void set_thread_count(int threads) {
  constexpr int kMost = 16;
  if (threads < 1 || threads > kMost) {
    fail("set_thread_count", "threads", "1 to " + std::to_string(kMost), std::to_string(threads));
  }
  setenv("VGPU_THREADS", std::to_string(threads).c_str(), 1);
}

}  // namespace convnet
