#include "mbarrier.h"

#include <algorithm>
#include <bit>

#include "cluster.h"
#include "fault.h"
#include "load_store.h"
#include "types.h"

namespace vgpu {

MbarrierState& mbarrier_state(Block& block, u32 address) {
  std::vector<MbarrierState>& all = block.mbarriers;
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const MbarrierState& s) { return s.address == address; });
  if (found != all.end()) return *found;
  const int column =
      block.rank * kColumns + kFirstCopyColumn + static_cast<int>(all.size()) % kCopyColumns;
  return all.emplace_back(MbarrierState{address, column, {}, {}});
}

namespace {

// Whether the lane may use a barrier that this column's lane initialized: there was a barrier
// between, or fence.mbarrier_init and a barrier.cluster, which may be relaxed.
bool knows_init(const Warp& w, Block& block, u32 address, int lane, u32 stamp, int column) {
  if (&block == w.block && tick_of(stamp) <= w.order.floor) return true;
  if (knows(w, lane, column, lane_of(stamp), tick_of(stamp))) return true;
  const MbarrierState& state = mbarrier_state(block, address);
  return state.visible_after >= 0 && w.cluster_waits[lane] > state.visible_after;
}

}  // namespace

Mbarrier* mbarrier_at(Warp& w, const Ins& i, Block& block, u64 address, int lane) {
  SharedMemory& m = block.shared;
  if (address & 7) fault(w, i, kMisaligned, lane, "misaligned mbarrier at " + hex(address));
  if (address + 8 > block.shared_size)
    fault(w, i, kIllegalAddress, lane, "mbarrier at " + hex(address) + " outside shared memory");
  const u32 stamp = m.written[address / 4];
  if (tick_of(stamp) < block.clock.first)
    fault(w, i, kLaunchFailed, lane, "the mbarrier was not initialized");
  const int column = m.writer[address / 4].column;
  if (!knows_init(w, block, static_cast<u32>(address), lane, stamp, column))
    fault(w, i, kLaunchFailed, lane,
          "the mbarrier was initialized by " + thread_name(w, column % kColumns, lane_of(stamp)) +
              of_block(w, *block.cluster.blocks[rank_of(column)]) + " at " +
              place_of(w, m.writer[address / 4].pc) + " with no barrier between");
  return reinterpret_cast<Mbarrier*>(m.bytes.data() + address);
}

namespace {

void complete_phase(Warp& w, const Ins& i, Block& block, Mbarrier* b, u32 address, int lane) {
  w.block->progressed = true;
  if (b->pending != 0) return;
  if (b->bytes < 0)
    fault(w, i, kLaunchFailed, lane, "more bytes arrived at the mbarrier than were expected");
  if (b->bytes != 0) return;
  b->phase ^= 1, b->pending = b->count;
  MbarrierState& state = mbarrier_state(block, address);
  state.completed = std::move(state.arriving);
  state.arriving = {};
}

void initialize(Warp& w, const Ins& i) {
  u64 a[kLanes];
  addresses(w, i, a);
  each_active_lane(w, [&](int l) {
    auto* const b = reinterpret_cast<Mbarrier*>(
        bytes_at(w, i, Space::shared, a[l], sizeof(Mbarrier), l, Access::write));
    const u32 count = reg<u32>(w, i.b)[l];
    if (count == 0 || count > 0xfffff)
      fault(w, i, kLaunchFailed, l, "mbarrier.init: expected a count from 1 to 1048575");
    *b = {static_cast<u16>(count), static_cast<u16>(count), 0, 0};
    MbarrierState& state = mbarrier_state(*w.block, static_cast<u32>(a[l]));
    state = MbarrierState{state.address, state.column, {}, {}};
    state.init_column = w.column, state.init_lane = l;
  });
}

// Where each active lane's barrier is, after the checks.
void barriers_of(Warp& w, const Ins& i, SharedPlace* at) {
  u64 a[kLanes];
  addresses(w, i, a);
  each_active_lane(w, [&](int l) {
    at[l] = shared_place(w, i, a[l], l, i.space == Space::cluster);
    mbarrier_at(w, i, *at[l].block, at[l].offset, l);
  });
}
// f(lanes) for the lanes at each barrier.
template <typename F>
void each_barrier(u32 lanes, const SharedPlace* at, F f) {
  while (lanes) {
    const SharedPlace& first = at[std::countr_zero(lanes)];
    u32 same = 0;
    for (u32 rest = lanes; rest; rest &= rest - 1) {
      const SharedPlace& other = at[std::countr_zero(rest)];
      if (other.block == first.block && other.offset == first.offset) same |= rest & -rest;
    }
    f(same, first);
    lanes &= ~same;
  }
}

// combine: 0 .release.cta, 1 .release.cluster, 2 relaxed. Who arrives at another block's barrier
// has to say .cluster, or what it did before is in no order with what comes after the wait.
void arrive(Warp& w, const Ins& i) {
  SharedPlace at[kLanes];
  barriers_of(w, i, at);
  each_active_lane(w, [&](int l) {
    if (at[l].block != w.block) note_guest(w, *at[l].block, l);
  });
  each_barrier(w.active, at, [&](u32 lanes, const SharedPlace& p) {
    const int needed = p.block == w.block ? 0 : 1;
    if (i.combine == 1 || i.combine == needed)
      release(w, lanes, &mbarrier_state(*p.block, p.offset).arriving);
  });
  each_active_lane(w, [&](int l) {
    Mbarrier* const b = mbarrier_at(w, i, *at[l].block, at[l].offset, l);
    if (i.op == Op::mbar_expect) b->bytes += static_cast<s32>(reg<u32>(w, i.b)[l]);
    const u32 arrivals = i.c < 0 ? 1 : reg<u32>(w, i.c)[l];
    if (arrivals == 0 || b->pending < arrivals)
      fault(w, i, kLaunchFailed, l,
            "mbarrier.arrive: more arrivals than the " + std::to_string(b->count) +
                " that the barrier counts");
    b->pending = static_cast<u16>(b->pending - arrivals);
    complete_phase(w, i, *at[l].block, b, at[l].offset, l);
  });
}

// Whether the phase of this parity is complete: the one that goes on has the other one then.
void test_wait(Warp& w, const Ins& i) {
  SharedPlace at[kLanes];
  barriers_of(w, i, at);
  u32 complete = 0;
  each_active_lane(w, [&](int l) {
    const Mbarrier* const b = mbarrier_at(w, i, *w.block, at[l].offset, l);
    const auto done = [&] { return b->phase != (reg<u32>(w, i.b)[l] & 1); };
    if (!done() && b->pending == 0) {
      if (w.block->random->later())
        w.block->progressed = true;  // the next one who asks may find them there
      else
        deliver_copies(w, i, at[l].offset);
    }
    if (done()) complete |= 1u << l;
  });
  each_active_lane(w, [&](int l) { reg<s32>(w, i.d)[l] = complete >> l & 1 ? -1 : 0; });
  w.yields = complete != w.active;
  each_barrier(complete, at, [&](u32 lanes, const SharedPlace& p) {  // which learn together
    acquire(w, lanes, mbarrier_state(*w.block, p.offset).completed);
  });
}

}  // namespace

void complete_bytes(Warp& w, const Ins& i, Block& block, u32 address, unsigned bytes, int lane) {
  auto* const b = reinterpret_cast<Mbarrier*>(block.shared.bytes.data() + address);
  b->bytes -= static_cast<s32>(bytes);
  complete_phase(w, i, block, b, address, lane);
}

Handler mbarrier_handler(const Ins& i) {
  switch (i.op) {
    case Op::mbar_init:
      return initialize;
    case Op::mbar_arrive:
    case Op::mbar_expect:
      return arrive;
    case Op::mbar_wait:
      return test_wait;
    default:
      return nullptr;
  }
}

}  // namespace vgpu
