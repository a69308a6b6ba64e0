// A barrier in shared memory, and the copies that it counts: PTX ISA, "mbarrier".
#pragma once
#include <cstdint>
#include <vector>

#include "order.h"
#include "warp.h"

namespace vgpu {

// The 64 bits in shared memory, opaque to programs. A phase is complete when `count` arrivals were
// made and all expected bytes have come.
struct Mbarrier {
  std::uint16_t count, pending;
  std::int32_t bytes : 31;
  std::uint32_t phase : 1;
};
static_assert(sizeof(Mbarrier) == 8);

// What those knew who arrived in the phase that goes on, and in the one before.
struct MbarrierState {
  std::uint32_t address;
  int column;  // of the copies that it counts
  Knowledge arriving, completed;

  // Who initialized it. After a fence.mbarrier_init the others in the cluster may use it when they
  // have waited for the cluster barrier's phase `visible_after`, relaxed or not.
  int init_column = -1, init_lane = 0;
  bool init_fenced = false;
  std::int64_t visible_after = -1;
};

// An asynchronous copy under way: its bytes arrive when somebody waits for them.
struct BulkCopy {
  struct Run {  // of bytes that lie together at both ends; from 0 of global memory are zeros
    std::uint32_t to, size;
    std::uint64_t from;
  };
  std::uint32_t mbarrier = 0;
  std::uint32_t bytes = 0;
  std::vector<Run> runs;
  Block* source = nullptr;   // whose shared memory the bytes come from; null: from global memory,
  std::vector<char> values;  // or, of st.async, from here
  int read = 0;              // the number of its AsyncRead
  const Warp* warp = nullptr;
  int lane = 0, pc = 0;
};

// What a copy reads of the shared memory it comes from: nobody may write there before it is done,
// which those know who have waited for the copy's mbarrier.
struct AsyncRead {
  int number;
  std::uint32_t begin, end;
  int column, pc;
  Tick done;  // 0: under way
};

// `address`: an offset in the block's shared memory.
Mbarrier* mbarrier_at(Warp& w, const Ins& i, Block& block, std::uint64_t address, int lane);
MbarrierState& mbarrier_state(Block& block, std::uint32_t address);
// So many bytes have come.
void complete_bytes(Warp& w, const Ins& i, Block& block, std::uint32_t address, unsigned bytes,
                    int lane);

// --- bulk_copy.cpp
// Lets the copies arrive that the barrier's phase waits for, in the warp's block.
void deliver_copies(Warp& w, const Ins& i, std::uint32_t mbarrier);

}  // namespace vgpu
