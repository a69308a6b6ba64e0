#include "vgpu/api/device.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "vgpu/api/failure.h"
#include "vgpu/api/register_table.h"
#include "vgpu/settings.h"

namespace vgpu {

namespace {

constexpr int kK = 1 << 10;
constexpr Limits kLimits[] = {
    // cc, threads, blocks, shared of an SM, of a block, reserved, clusters
    {75, 1024, 16, 64 * kK, 64 * kK, 0, 0, 0},     {80, 2048, 32, 164 * kK, 163 * kK, kK, 0, 0},
    {86, 1536, 16, 100 * kK, 99 * kK, kK, 0, 0},   {89, 1536, 24, 100 * kK, 99 * kK, kK, 0, 0},
    {90, 2048, 32, 228 * kK, 227 * kK, kK, 8, 16}, {100, 2048, 32, 228 * kK, 227 * kK, kK, 8, 16},
    {120, 1536, 24, 100 * kK, 99 * kK, kK, 8, 8},
};

}  // namespace

const Limits& limits() {
  static const Limits& found = [&]() -> const Limits& {
    const int asked = env("VGPU_CC", 90);
    for (const Limits& each : kLimits)
      if (each.capability == asked) return each;
    std::fprintf(stderr, "vgpu: VGPU_CC=%d: expected one of", asked);
    for (const Limits& each : kLimits) std::fprintf(stderr, " %d", each.capability);
    std::fprintf(stderr, "\n");
    std::exit(2);
  }();
  return found;
}

int device_count() {
  static const int count = std::clamp(env("VGPU_DEVICES", 1), 0, kMaxDevices);
  return count;
}

void require_device(int device) {
  require(device >= 0 && device < device_count(), CUDA_ERROR_INVALID_DEVICE);
}

int device_attribute(CUdevice_attribute attribute, int device) {
  const Limits& l = limits();
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      return kMaxThreads;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z:
      return static_cast<int>(kMaxBlock[attribute - CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X]);
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z:
      return static_cast<int>(kMaxGrid[attribute - CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X]);
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
      return kSharedWithoutOptIn;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
      return l.shared_per_block;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
      return l.shared_per_sm;
    case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK:
      return l.reserved_shared;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
      return l.threads_per_sm;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR:
      return l.blocks_per_sm;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:
      return kRegistersPerBlock;
    case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY:
      return 64 << 10;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
      return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_PITCH:
      return 0x7fffffff;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      return l.capability / 10;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      return l.capability % 10;
    case CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH:
    case CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED:
      return l.capability >= 90;
    // Of no compute capability: few multiprocessors, so that small tests fill them; an invented
    // clock; an L2 cache as large as an H200's.
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      return env("VGPU_SMS", 4);
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
      return 1500000;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
      return 2000000;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
      return 5120;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
      return 50 << 20;
    case CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT:
    case CU_DEVICE_ATTRIBUTE_SURFACE_ALIGNMENT:
      return 512;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
      return 3;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
      return device + 1;
    case CU_DEVICE_ATTRIBUTE_GPU_OVERLAP:
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_GLOBAL_L1_CACHE_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_LOCAL_L1_CACHE_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH:
    case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED:
      return 1;
    default:
      return 0;  // memory pools and managed memory among them
  }
}

std::string device_name() { return "vgpu sm_" + std::to_string(limits().capability); }

std::string capability_text() {
  const int capability = limits().capability;
  return "compute capability " + std::to_string(capability / 10) + "." +
         std::to_string(capability % 10);
}

std::string pci_bus_id(int device) {
  char text[32];
  std::snprintf(text, sizeof text, "0000:%02x:00.0", device + 1);
  return text;
}

int device_of_pci_bus_id(const char* text) {
  for (int device = 0; device < device_count(); ++device)
    if (pci_bus_id(device) == text) return device;
  fail(CUDA_ERROR_INVALID_DEVICE);
}

int resident_blocks(int threads, std::size_t shared, int registers) {
  const Limits& l = limits();
  require(threads > 0, CUDA_ERROR_INVALID_VALUE);
  const auto bytes = static_cast<long>(shared) + l.reserved_shared;
  long blocks = std::min(l.blocks_per_sm, l.threads_per_sm / ((threads + 31) / 32 * 32));
  if (bytes > 0) blocks = std::min(blocks, l.shared_per_sm / bytes);
  if (registers > 0)
    blocks = std::min(blocks, kRegistersPerBlock / registers_of_block(registers, threads));
  return static_cast<int>(blocks);
}

}  // namespace vgpu
