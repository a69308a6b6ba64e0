// Memory as kernels see it: shared arrays, the memories of several logical devices, and the checks
// of single accesses in an instrumented build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "block.h"

namespace convnet::emulator {

constexpr int kPoison = 0xff;                        // as float, double or bf16 a NaN; as int -1
constexpr std::size_t kMaxSharedBytes = 227 * 1024;  // of a block, static and dynamic together

// ---- shared memory -----------------------------------------------------------------------------

void allocate_shared_array(SharedArray* array);  // fills data and cells; the data is poisoned
void free_shared_array(SharedArray* array);
bool canaries_intact(const SharedArray& array);

// ---- logical devices ---------------------------------------------------------------------------

int device_count();  // CONVNET_EMULATOR_DEVICES, 2 unless set
int current_device();
void set_current_device(int device);
bool peer_enabled(int device, int peer);
void set_peer_enabled(int device, int peer, bool enabled);

// Declares [pointer, pointer + bytes) to be memory of `device`. Host memory that nobody registers
// belongs to every device. But while anything is registered, kernels compiled with
// -fsanitize=thread may touch nothing but registered memory and what cudaMalloc gave: a binding
// that registers the arrays of a call learns of every access outside them.
void register_memory(const void* pointer, std::size_t bytes, int device);
void unregister_memory(const void* pointer);

// The device a pointer belongs to, or -1 for memory that nobody registered.
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

// Global memory of which accesses from `device` were found right, until `version` changes.
struct KnownRange {
  std::uint64_t version = 0;
  int device = 0;
  std::uintptr_t start = 0, end = 0;
};
std::uint64_t memory_version();

// What is wrong with a kernel's access to global memory, for a message; empty when nothing is known
// to be, and then `known` says of which range.
std::string global_access_error(int device, std::uintptr_t address, std::size_t bytes,
                                KnownRange* known);

// Throws std::runtime_error when the launch's device may not touch what its argument points to.
void check_pointer_argument(const Launch& launch, const void* pointer, int position);

// ---- single accesses ---------------------------------------------------------------------------

enum class Access { kRead, kWrite, kAtomic, kPoisonWrite };

// No checks on this OS thread while one exists. For emulator code that runs on a fiber and uses the
// standard library: its inline functions may be the kernels' instrumented copies.
class PauseChecks {
 public:
  PauseChecks();
  ~PauseChecks();
  PauseChecks(const PauseChecks&) = delete;
  PauseChecks& operator=(const PauseChecks&) = delete;

 private:
  bool before_;
};

// Checks an access that the emulator does for a kernel (cp.async, ldmatrix, atomics). Does nothing
// unless the kernels were compiled with -fsanitize=thread; see access_check.cpp.
void check_access(const void* address, std::size_t bytes, Access access, CallSite where);

}  // namespace convnet::emulator
