// A block: its shared memory, its barriers and where it is in the grid.
#pragma once
#include <cstdint>
#include <vector>

#include "mbarrier.h"
#include "order.h"
#include "random.h"
#include "shared_memory.h"
#include "wgmma.h"

namespace vgpu {

// bar.sync: PTX ISA, "Parallel Synchronization and Communication Instructions: bar". Each block has
// 16; they count threads, by whole warps.
struct Barrier {
  unsigned arrived = 0;   // threads
  unsigned expected = 0;  // 0: all threads of the block
  int pc = -1;            // of the first who arrived
  int first_warp = 0;
  Knowledge knowledge;  // of those who arrived
};

struct Block {
  unsigned id[3] = {};
  unsigned threads = 0;
  int warp_count = 0;
  Warp* warps = nullptr;
  Random* random = nullptr;
  unsigned shared_size = 0;
  SharedMemory shared;
  BlockClock clock;
  Barrier barriers[16];
  std::vector<MbarrierState> mbarriers;
  std::vector<BulkCopy> copies;   // under way
  std::vector<Product> products;  // wgmma, under way or not: what they read of shared memory
  bool progressed = false;        // since a warp began to run: others may go on, though it waits
};

}  // namespace vgpu
