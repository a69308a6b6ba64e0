// What the virtual devices are: how many, and the limits of their compute capability.
#pragma once
#include <cuda.h>

#include <cstddef>
#include <string>

namespace vgpu {

// Technical specifications of a compute capability. The same for all: 32 lanes, blocks of 1,024
// threads in (1024, 1024, 64), grids of (2^31 - 1, 65535, 65535), 65,536 registers a block and 255
// a thread, 48 KiB of shared memory without opting in, 64 KiB of constants.
// Source: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
struct Limits {
  int capability;              // 90 of 9.0
  int threads_per_sm;          // resident
  int blocks_per_sm;           // resident
  int shared_per_sm;           // bytes
  int shared_per_block;        // bytes, static and dynamic together, for a kernel that opted in
  int reserved_shared;         // bytes of each block that the system takes
  int cluster_blocks;          // 0: no clusters; of a kernel that asks for no more than is portable
  int cluster_blocks_allowed;  // for a kernel that asked for a non-portable size
};

constexpr int kMaxDevices = 16;
constexpr int kSharedWithoutOptIn = 48 << 10;
constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kMaxBlock[3] = {1024, 1024, 64};
constexpr unsigned kMaxGrid[3] = {0x7fffffff, 65535, 65535};
constexpr int kRegistersPerBlock = 65536;
constexpr std::size_t kDeviceBytes = 16ull << 30;

const Limits& limits();  // of VGPU_CC, 90 unless set; ends the program for one that is not known
int device_count();      // VGPU_DEVICES, 1 unless set
void require_device(int device);

int device_attribute(CUdevice_attribute attribute, int device);  // 0 for what is not known
std::string device_name();
std::string capability_text();  // "compute capability 9.0"
std::string pci_bus_id(int device);
int device_of_pci_bus_id(const char* text);

// Blocks of a kernel that fit on a multiprocessor, by threads, shared memory and registers of a
// thread, where these are known (0: not).
int resident_blocks(int threads, std::size_t shared, int registers);

}  // namespace vgpu
