// A block: its shared memory, its barriers and where it is in the grid.
#pragma once
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "mbarrier.h"
#include "order.h"
#include "random.h"
#include "shared_memory.h"
#include "wgmma.h"

namespace vgpu {

struct Cluster;  // cluster.h

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
  explicit Block(Cluster& cluster);

  Cluster& cluster;
  ClusterClock& clock;  // the cluster's
  int rank = 0;         // in the cluster
  unsigned id[3] = {};
  unsigned threads = 0;
  int warp_count = 0;
  int warps_alive = 0;
  Warp* warps = nullptr;
  Random* random = nullptr;
  unsigned shared_size = 0;
  SharedMemory shared;
  Barrier barriers[16];
  std::vector<MbarrierState> mbarriers;
  std::vector<BulkCopy> copies;        // under way to this block
  std::vector<AsyncRead> async_reads;  // of its memory by copies to other blocks
  std::vector<Product> products;       // wgmma, under way or not: what they read of shared memory
  bool progressed = false;  // since a warp began to run: others may go on, though it waits

  // Of each thread of another block (column, lane) its last access to this block's memory, and what
  // this block's threads knew when they ended: it must not end before that access.
  struct Guest {
    int column, lane, pc;
    Tick tick;
  };
  std::vector<Guest> guests;
  Knowledge at_end;

  int spare_registers = 0;                      // that warps gave back, of a thread's each
  std::vector<VectorClock::Thread> grid_waits;  // griddepcontrol.wait: by whom, when
};

}  // namespace vgpu
