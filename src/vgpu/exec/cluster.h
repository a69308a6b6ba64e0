// A cluster: blocks that run together and reach each other's shared memory. PTX ISA, "Cluster of
// Cooperative Thread Arrays" and "State Spaces: Shared State Space". A block that is in none is a
// cluster of its own.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "block.h"
#include "order.h"
#include "warp.h"

namespace vgpu {

// barrier.cluster: counts threads, which arrive once in each phase and then wait for it. Those that
// have ended are not waited for.
struct ClusterBarrier {
  std::uint32_t phase = 0;
  unsigned arrived = 0, live = 0;  // threads
  Knowledge arriving, completed;   // of those who arrived in this phase, in the one before
};

struct Cluster {
  std::uint32_t size() const { return static_cast<std::uint32_t>(blocks.size()); }

  ClusterClock clock;
  std::vector<std::unique_ptr<Block>> blocks;  // by rank
  ClusterBarrier barrier;
};

// An address in the window .shared::cluster: above the offset in a block's memory its rank plus
// one, or 0 for the block of the thread that uses it. The window .shared::cta is where it is 0.
constexpr int kRankShift = 24;

struct SharedPlace {
  Block* block;
  std::uint32_t offset;
};
// Checks that the block of the address can be reached: that it has surely begun, and not ended.
// `cluster_window`: whether other blocks are meant at all.
SharedPlace shared_place(Warp& w, const Ins& i, std::uint64_t address, int lane,
                         bool cluster_window);
// After an access to another block's memory: that block may not end before it.
void note_guest(Warp& w, Block& block, int lane);
// What a message says of a block other than the thread's own: " of block (1, 0, 0)".
std::string of_block(const Warp& w, const Block& block);

// Lanes have ended: the others may go on.
void leave_cluster_barrier(Warp& w, std::uint32_t lanes);
// A fence.mbarrier_init of these lanes.
void fence_mbarrier_init(Warp& w, std::uint32_t lanes);
// The last warp of a block has ended: nobody may still touch its memory.
void check_end_of_block(const Block& block);

}  // namespace vgpu
