// A block: its shared memory, its barriers and where it is in the grid.
#pragma once
#include <cstdint>

#include "shared_memory.h"

namespace vgpu {

// bar.sync: PTX ISA, "Parallel Synchronization and Communication Instructions: bar". Each block has
// 16; they count threads, by whole warps.
struct Barrier {
  unsigned arrived = 0, expected = 0;
};

struct Block {
  unsigned id[3] = {};
  SharedMemory shared;
  Barrier barriers[16];
  bool mbarrier_changed = false;  // since a warp began to run: it made progress though it waits
};

}  // namespace vgpu
