#include "cluster.h"

#include <algorithm>
#include <bit>

#include "fault.h"
#include "types.h"
#include "vgpu/counters/count.h"

namespace vgpu {

Block::Block(Cluster& c) : cluster(c), clock(c.clock) {}

std::string of_block(const Warp& w, const Block& block) {
  return &block == w.block ? "" : " of " + block_name(block);
}

namespace {

// Whether the lane knows of anything that a thread of the block has done, so that it has begun.
bool knows_of(const Warp& w, const Block& block, int lane) {
  if (w.cluster_waits[lane] > 0) return true;
  const auto in = [&](const VectorClock& seen) {
    for (int k = 0; k < block.warp_count; ++k)
      if (seen.at(block.warps[k].column) >= block.clock.first) return true;
    return std::any_of(seen.threads.begin(), seen.threads.end(), [&](const auto& t) {
      return rank_of(t.column) == block.rank && is_warp(t.column);
    });
  };
  const Knowledge* const mine = w.order.alone[lane].get();
  return in(w.order.known.seen) || (mine && in(mine->seen));
}

// Which block of the cluster an address is of; null for what is no such address.
Block* block_of(const Warp& w, u64 address) {
  const u64 tag = address >> kRankShift;
  if (tag == 0) return w.block;
  return tag <= w.block->cluster.size() ? w.block->cluster.blocks[tag - 1].get() : nullptr;
}

}  // namespace

SharedPlace shared_place(Warp& w, const Ins& i, u64 address, int lane, bool cluster_window) {
  Block* const block = block_of(w, address);
  if (!block) return {w.block, static_cast<u32>(std::min<u64>(address, ~0u))};  // beyond its end
  const u32 offset = address & ((1u << kRankShift) - 1);
  if (block == w.block) return {block, offset};
  if (!cluster_window)
    fault(w, i, kIllegalAddress, lane,
          "the address is of the shared memory of " + block_name(*block) +
              "; .shared::cta is the thread's own block");
  if (block->warps_alive == 0)
    fault(w, i, kIllegalAddress, lane,
          "access to the shared memory of " + block_name(*block) + ", which has ended");
  if (!knows_of(w, *block, lane))
    fault(w, i, kLaunchFailed, lane,
          "access to the shared memory of " + block_name(*block) +
              ", which may not have begun: there was no barrier.cluster before");
  return {block, offset};
}

void note_guest(Warp& w, Block& block, int lane) {
  const auto mine = std::find_if(block.guests.begin(), block.guests.end(), [&](const auto& g) {
    return g.column == w.column && g.lane == lane;
  });
  if (mine == block.guests.end())
    block.guests.push_back({w.column, lane, w.pc, block.clock.now});
  else
    *mine = {w.column, lane, w.pc, block.clock.now};
}

void check_end_of_block(const Block& block) {
  const auto report = [&](int column, int lane, int pc, const std::string& what) {
    const Warp& w = block.cluster.blocks[rank_of(column)]->warps[column % kColumns];
    fault(w, w.program->code->ins[pc], kLaunchFailed, lane,
          what + " the shared memory of " + block_name(block) +
              ", which may have ended by then: it waits for nothing that comes after");
  };
  for (const Block::Guest& g : block.guests)
    if (!block.at_end.seen.has(g.column, g.lane, g.tick))
      report(g.column, g.lane, g.pc, "access to");
  for (const AsyncRead& r : block.async_reads)
    if (!r.done || !block.at_end.seen.has(r.column, 0, r.done))
      report(block.rank * kColumns, 0, r.pc, "the copy reads");
}

namespace {

// --- barrier.cluster
constexpr int kRelaxed = 1;  // of Ins::combine

void complete_phase(Cluster& cluster) {
  ClusterBarrier& b = cluster.barrier;
  if (b.arrived != b.live) return;
  b.completed = std::move(b.arriving);
  b.arriving = {};
  b.arrived = 0;
  ++b.phase;
  for (const std::unique_ptr<Block>& block : cluster.blocks)
    for (int k = 0; k < block->warp_count; ++k) {
      Warp& w = block->warps[k];
      w.cluster_complete |= w.cluster_arrived;
      w.cluster_arrived = 0;
    }
}

void arrive(Warp& w, const Ins& i) {
  ClusterBarrier& b = w.block->cluster.barrier;
  if (const u32 twice = w.active & (w.cluster_arrived | w.cluster_complete))
    fault(w, i, kLaunchFailed, std::countr_zero(twice),
          "barrier.cluster.arrive again, with no barrier.cluster.wait since the last one");
  if (!(i.combine & kRelaxed))
    release(w, w.active, &b.arriving);
  else if (w.order.at_fence && (w.active & ~w.order.fence_lanes) == 0)
    b.arriving.join(*w.order.at_fence);
  for (MbarrierState& s : w.block->mbarriers)
    if (s.init_fenced && s.visible_after < 0 && s.init_column == w.column &&
        (w.active >> s.init_lane & 1))
      s.visible_after = b.phase;
  w.cluster_arrived |= w.active;
  b.arrived += static_cast<unsigned>(std::popcount(w.active));
  w.block->progressed = true;
  complete_phase(w.block->cluster);
}

// Is executed again as long as the phase is not complete.
void wait(Warp& w, const Ins& i) {
  if (const u32 early = w.active & ~(w.cluster_arrived | w.cluster_complete))
    fault(w, i, kLaunchFailed, std::countr_zero(early),
          "barrier.cluster.wait without a barrier.cluster.arrive before");
  if (w.active & w.cluster_arrived) {
    w.yields = true;
    --w.pc;
    return;
  }
  if (w.counts) count_instruction(w, i);
  w.cluster_complete &= ~w.active;
  each_active_lane(w, [&](int l) { ++w.cluster_waits[l]; });
  acquire(w, w.active, w.block->cluster.barrier.completed);
  w.block->progressed = true;
}

// --- addresses: combine 0 generic, 1 of the window .shared::cluster
constexpr u64 kWindow = 1ull << 56, kOffsets = (1ull << kRankShift) - 1;

u64 cluster_address(const Warp& w, const Ins& i, u64 address, int lane) {
  if (i.combine == 0 && address >> 56 != 1)
    fault(w, i, kLaunchFailed, lane, hex(address) + " is no address of shared memory");
  return i.combine == 0 ? address & (kWindow - 1) : address;
}
template <typename T>
void map_address(Warp& w, const Ins& i) {
  each_active_lane(w, [&](int l) {
    const u64 address = cluster_address(w, i, reg<T>(w, i.a)[l], l);
    const u32 rank = reg<u32>(w, i.b)[l], size = w.block->cluster.size();
    if (rank >= size)
      fault(w, i, kLaunchFailed, l,
            "mapa to the block of rank " + std::to_string(rank) + "; the cluster has " +
                std::to_string(size));
    const u64 mapped = (address & kOffsets) | u64{rank + 1} << kRankShift;
    reg<T>(w, i.d)[l] = static_cast<T>(i.combine == 0 ? mapped | kWindow : mapped);
  });
}
template <typename T>
void rank_of_address(Warp& w, const Ins& i) {
  each_active_lane(w, [&](int l) {
    const Block* const block = block_of(w, cluster_address(w, i, reg<T>(w, i.a)[l], l));
    if (!block) fault(w, i, kLaunchFailed, l, "getctarank of an address of no block");
    reg<u32>(w, i.d)[l] = static_cast<u32>(block->rank);
  });
}

}  // namespace

void leave_cluster_barrier(Warp& w, u32 lanes) {
  ClusterBarrier& b = w.block->cluster.barrier;
  b.live -= static_cast<unsigned>(std::popcount(lanes));
  b.arrived -= static_cast<unsigned>(std::popcount(lanes & w.cluster_arrived));
  w.cluster_arrived &= ~lanes;
  if (b.arrived == 0) return;
  const u32 phase = b.phase;
  complete_phase(w.block->cluster);
  if (b.phase != phase) w.block->progressed = true;
}

void fence_mbarrier_init(Warp& w, u32 lanes) {
  for (MbarrierState& s : w.block->mbarriers)
    if (s.init_column == w.column && (lanes >> s.init_lane & 1)) s.init_fenced = true;
}

Handler cluster_handler(const Ins& i) {
  switch (i.op) {
    case Op::cluster_arrive:
      return arrive;
    case Op::cluster_wait:
      return wait;
    case Op::mapa:
      return size_of(i.type) == 8 ? map_address<u64> : map_address<u32>;
    case Op::getctarank:
      return size_of(i.type) == 8 ? rank_of_address<u64> : rank_of_address<u32>;
    default:
      return nullptr;
  }
}

}  // namespace vgpu
