#include "mbarrier.h"

#include <algorithm>

#include "block.h"
#include "fault.h"
#include "load_store.h"
#include "types.h"

namespace vgpu {

MbarrierState& mbarrier_state(Warp& w, u32 address) {
  std::vector<MbarrierState>& all = w.block->mbarriers;
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const MbarrierState& s) { return s.address == address; });
  if (found != all.end()) return *found;
  const int column = kFirstCopyColumn + static_cast<int>(all.size()) % kCopyColumns;
  return all.emplace_back(MbarrierState{address, column, {}, {}});
}

Mbarrier* mbarrier_at(Warp& w, const Ins& i, u64 address, int lane) {
  SharedMemory& m = w.block->shared;
  if (address & 7) fault(w, i, kMisaligned, lane, "misaligned mbarrier at " + hex(address));
  if (address + 8 > w.block->shared_size)
    fault(w, i, kIllegalAddress, lane, "mbarrier at " + hex(address) + " outside shared memory");
  const u32 stamp = m.written[address / 4];
  if (tick_of(stamp) < w.block->clock.first)
    fault(w, i, kLaunchFailed, lane, "the mbarrier was not initialized");
  const int column = m.writer[address / 4] & 255;
  if (tick_of(stamp) > w.order.floor && !knows(w, lane, column, lane_of(stamp), tick_of(stamp)))
    fault(w, i, kLaunchFailed, lane,
          "the mbarrier was initialized by " + thread_name(w, column, lane_of(stamp)) + " at " +
              place_of(w, m.writer_pc[address / 4]) + " with no barrier between");
  return reinterpret_cast<Mbarrier*>(m.bytes.data() + address);
}

namespace {

void complete_phase(Warp& w, const Ins& i, Mbarrier* b, u32 address, int lane) {
  w.block->progressed = true;
  if (b->pending != 0) return;
  if (b->bytes < 0)
    fault(w, i, kLaunchFailed, lane, "more bytes arrived at the mbarrier than were expected");
  if (b->bytes != 0) return;
  b->phase ^= 1, b->pending = b->count;
  MbarrierState& state = mbarrier_state(w, address);
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
    MbarrierState& state = mbarrier_state(w, static_cast<u32>(a[l]));
    state.arriving = state.completed = {};
  });
}

void arrive(Warp& w, const Ins& i) {
  u64 a[kLanes];
  addresses(w, i, a);
  const u32 address = static_cast<u32>(a[first_active(w)]);
  u32 together = 0;  // lanes at the same barrier
  each_active_lane(w, [&](int l) { together |= a[l] == address ? 1u << l : 0; });
  each_active_lane(w, [&](int l) { mbarrier_at(w, i, a[l], l); });
  if (together == w.active) {
    release(w, w.active, &mbarrier_state(w, address).arriving);
  } else {
    each_active_lane(w, [&](int l) {
      release(w, 1u << l, &mbarrier_state(w, static_cast<u32>(a[l])).arriving);
    });
  }
  each_active_lane(w, [&](int l) {
    Mbarrier* const b = mbarrier_at(w, i, a[l], l);
    if (i.op == Op::mbar_expect) b->bytes += static_cast<s32>(reg<u32>(w, i.b)[l]);
    if (b->pending == 0)
      fault(w, i, kLaunchFailed, l,
            "mbarrier.arrive: more arrivals than the " + std::to_string(b->count) +
                " that the barrier counts");
    --b->pending;
    complete_phase(w, i, b, static_cast<u32>(a[l]), l);
  });
}

// Whether the phase of this parity is complete: the one that goes on has the other one then.
void test_wait(Warp& w, const Ins& i) {
  u64 a[kLanes];
  addresses(w, i, a);
  u32 complete = 0;
  each_active_lane(w, [&](int l) {
    const u32 address = static_cast<u32>(a[l]);
    const Mbarrier* const b = mbarrier_at(w, i, a[l], l);
    const auto done = [&] { return b->phase != (reg<u32>(w, i.b)[l] & 1); };
    if (!done() && b->pending == 0) {
      if (w.block->random->later())
        w.block->progressed = true;  // the next one who asks may find them there
      else
        deliver_copies(w, i, address);
    }
    if (done()) complete |= 1u << l;
  });
  each_active_lane(w, [&](int l) { reg<s32>(w, i.d)[l] = complete >> l & 1 ? -1 : 0; });
  w.yields = complete != w.active;
  while (complete) {  // lanes at the same barrier learn together
    const u32 address = static_cast<u32>(a[std::countr_zero(complete)]);
    u32 same = 0;
    for (u32 rest = complete; rest; rest &= rest - 1)
      same |= a[std::countr_zero(rest)] == address ? rest & -rest : 0;
    acquire(w, same, mbarrier_state(w, address).completed);
    complete &= ~same;
  }
}

}  // namespace

void complete_bytes(Warp& w, const Ins& i, u32 address, unsigned bytes, int lane) {
  auto* const b = reinterpret_cast<Mbarrier*>(w.block->shared.bytes.data() + address);
  b->bytes -= static_cast<s32>(bytes);
  complete_phase(w, i, b, address, lane);
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
