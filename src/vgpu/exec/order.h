// What a warp, and each of its lanes, knows to have happened before: the rules by which barriers
// pass that on. PTX ISA, "Memory Consistency Model: Causality order".
#pragma once
#include <array>
#include <cstdint>
#include <memory>

#include "clock.h"

namespace vgpu {

// The order among the lanes of a warp is as weak as the manual has it: lanes that execute an
// instruction together are not thereby synchronized, only bar.warp.sync and bar.sync do that.
struct WarpOrder {
  Knowledge known;  // to all lanes
  // What one lane knows besides, having waited alone.
  std::array<std::unique_ptr<Knowledge>, 32> alone;
  Tick lanes_synchronized = 0;  // all lanes know each other's accesses up to here
  Tick floor = 0;  // all lanes know everybody's accesses to their block's memory up to here
  // What the lanes `fence_lanes` knew at their last fence of the cluster, or a wider one.
  std::unique_ptr<Knowledge> at_fence;
  std::uint32_t fence_lanes = 0;
};

struct Block;
struct Warp;

// The clock of the blocks that run together.
struct ClusterClock {
  Tick now = 2, first = 1;  // the tick that goes on; the first of these blocks
};

void begin_order(Warp& w);
// The lanes meet: bar.warp.sync, or bar.sync, of these.
void synchronize_lanes(Warp& w, std::uint32_t lanes);
// The lanes pass on what they know.
void release(Warp& w, std::uint32_t lanes, Knowledge* to);
// The lanes learn.
void acquire(Warp& w, std::uint32_t lanes, const Knowledge& from);
// A fence of memory by these lanes, for the cluster or more: what they know passes on by what is
// relaxed after it.
void fence_memory(Warp& w, std::uint32_t lanes);
// fence.proxy.async by these lanes.
void fence_proxies(Warp& w, std::uint32_t lanes);
void update_floor(Warp& w);

// The last access of a column to the shared memory of a block.
void note_access(Block& block, int column);
// Whether lane `lane` knows the access of a column (of lane `other_lane` where that is a warp).
bool knows(const Warp& w, int lane, int column, int other_lane, Tick tick);
// Whether that access, an ordinary write, is known to have come to the asynchronous proxy.
bool knows_fenced(const Warp& w, int lane, int column, int other_lane, Tick tick);

}  // namespace vgpu
