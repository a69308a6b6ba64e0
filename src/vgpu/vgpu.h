// What the parts of the virtual GPU share: memory.h (device memory), ptx/ (images to decoded
// kernels), exec.cpp (the interpreter), and api/ (streams, modules and launches behind the driver
// and the runtime API).
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "memory.h"
#include "ptx/module.h"
#include "settings.h"

namespace vgpu {

class GlobalAccesses;

// --- exec.cpp
struct Launch {
  const Kernel* kernel = nullptr;
  unsigned grid[3], block[3];
  unsigned cluster[3] = {1, 1, 1};
  bool explicit_cluster = false;
  unsigned dynamic_shared = 0;
  int registers = 0;  // of a thread; 0: not known
  int device = 0;
  unsigned peers = 0;  // devices whose memory this one may touch, a bit each
  std::vector<char> params;
  // Of programmatic dependent launches (exec/grid_dependency.h): where to note what this one
  // touches, null for nowhere; and those that may still run when this one begins.
  std::shared_ptr<GlobalAccesses> accesses;
  std::vector<std::shared_ptr<const GlobalAccesses>> may_run;
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

}  // namespace vgpu
