// Memory as kernels see it: shared arrays, and the memories of several logical devices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "block.h"

namespace convnet::emulator {

constexpr int kPoison = 0xff;  // as float, double or bf16 a NaN; as int -1
// Of shared memory, static and dynamic together: what a block may have, and what after a
// cudaFuncSetAttribute for its kernel, as on devices of compute capability 9.0.
constexpr std::size_t kSharedBytes = 48 * 1024, kMaxSharedBytes = 227 * 1024;

// ---- shared memory -----------------------------------------------------------------------------

void allocate_shared_array(SharedArray* array);  // fills data, with poison
void free_shared_array(SharedArray* array);
bool canaries_intact(const SharedArray& array);

// ---- logical devices ---------------------------------------------------------------------------

int device_count();  // CONVNET_EMULATOR_DEVICES, 2 unless set
int current_device();
void set_current_device(int device);
bool peer_enabled(int device, int peer);
void set_peer_enabled(int device, int peer, bool enabled);

// The device whose memory a pointer points to, or -1 for memory of the host, which every device may
// access.
int memory_device(const void* pointer);

// A device's own memory, between guard pages. While a kernel runs, the pages of devices that it has
// no peer mapping for are protected.
void* allocate_device_memory(std::size_t bytes, int device);
void free_device_memory(void* pointer);
class ProtectOtherDevices {
 public:
  explicit ProtectOtherDevices(int device);
  ~ProtectOtherDevices();
  ProtectOtherDevices(const ProtectOtherDevices&) = delete;
  ProtectOtherDevices& operator=(const ProtectOtherDevices&) = delete;

 private:
  int device_;
};

// What is wrong with an access from `device` that the guard pages or the protection stopped, for a
// message; empty where the address belongs to no device.
std::string global_access_error(int device, std::uintptr_t address);

// Throws std::runtime_error when the launch's device may not touch what its argument points to.
void check_pointer_argument(const Launch& launch, const void* pointer, int position);

}  // namespace convnet::emulator
