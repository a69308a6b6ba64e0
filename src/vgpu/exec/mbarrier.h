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
};

// A bulk copy under way: its bytes arrive when somebody waits for them.
struct BulkCopy {
  struct Run {  // of bytes that lie together at both ends; from 0 are zeros
    std::uint32_t to, size;
    std::uint64_t from;
  };
  std::uint32_t mbarrier = 0;
  std::uint32_t bytes = 0;
  std::vector<Run> runs;
  int warp = 0, lane = 0, pc = 0;
};

Mbarrier* mbarrier_at(Warp& w, const Ins& i, std::uint64_t address, int lane);
MbarrierState& mbarrier_state(Warp& w, std::uint32_t address);
// So many bytes have come.
void complete_bytes(Warp& w, const Ins& i, std::uint32_t address, unsigned bytes, int lane);

// --- bulk_copy.cpp
// Lets the copies arrive that the barrier's phase waits for.
void deliver_copies(Warp& w, const Ins& i, std::uint32_t mbarrier);

}  // namespace vgpu
