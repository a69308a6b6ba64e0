// What the parts of the virtual GPU share: memory.cpp (device memory), ptx/ (images to decoded
// kernels), exec.cpp (the interpreter), driver.cpp (the driver API) and
// proc_address.cpp (cuGetProcAddress).
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "ptx/module.h"

namespace vgpu {

// --- memory.cpp: device addresses are numbers that the host cannot dereference; the bytes lie
// kShift above. Each allocation has a red zone behind it.
struct Allocation {
  std::uint64_t base = 0, size = 0;
  int device = 0;
  bool host = false;  // pinned host memory: the same address on both sides
};
std::uint64_t memory_alloc(std::uint64_t size, int device);  // 0 where there is no room
void memory_add_host(void* base, std::uint64_t size);
bool memory_free(std::uint64_t address);
const Allocation* memory_find(std::uint64_t address);  // the allocation that holds it, or null
char* memory_host(std::uint64_t address);              // its bytes, for any address: no check
// The bytes of [address, address + size), or null where that is not wholly in one allocation; host
// addresses that nobody registered are taken as they are.
char* memory_range(std::uint64_t address, std::uint64_t size);
std::uint64_t memory_used();

// --- exec.cpp
struct Launch {
  unsigned grid[3], block[3];
  unsigned cluster[3] = {1, 1, 1};
  unsigned dynamic_shared = 0;
  int device = 0;
  unsigned peers = 0;  // devices whose memory this one may touch, a bit each
  std::vector<char> params;
};
struct Fault {
  int code = 0;  // CUresult
  std::string text;
};
long exec_unhandled(const Code& code);  // instructions that exec.cpp does not know
Fault exec_launch(PtxModule& module, Kernel& kernel, const Launch& launch);

// A CUtensorMap of cuTensorMapEncodeTiled, in our own layout: the kernels only hand it on.
struct alignas(64) TensorMap {
  static constexpr std::uint32_t kMagic = 0x7467706d;
  std::uint32_t magic, rank;
  std::uint64_t address, stride[4];
  std::uint32_t size[5], box[5];
  std::uint8_t step[5], element, swizzle;
};
static_assert(sizeof(TensorMap) == 128);

int env(const char* name, int otherwise);

}  // namespace vgpu
