#include "mbarrier.h"

#include "block.h"
#include "fault.h"
#include "load_store.h"
#include "types.h"

namespace vgpu {

Mbarrier* mbarrier_at(Warp& w, const Ins& i, u64 address, int lane) {
  SharedMemory& m = w.block->shared;
  if (address & 7) fault(w, i, kMisaligned, lane, "mbarrier at " + hex(address));
  if (address + 8 > m.bytes.size())
    fault(w, i, kIllegalAddress, lane, "mbarrier at " + hex(address));
  if (m.writes[address / 4] >> 8 < m.first_epoch)
    fault(w, i, kLaunchFailed, lane, "mbarrier used before mbarrier.init");
  return reinterpret_cast<Mbarrier*>(m.bytes.data() + address);
}

namespace {

void complete_phase(Warp& w, const Ins& i, Mbarrier* b, int lane) {
  if (b->pending == 0 && b->bytes == 0) b->phase ^= 1, b->pending = b->count;
  if (b->bytes < 0 && b->pending == 0)
    fault(w, i, kLaunchFailed, lane, "mbarrier: more bytes arrived than were expected");
  w.block->mbarrier_changed = true;
}

void initialize(Warp& w, const Ins& i) {
  u64 a[kLanes];
  addresses(w, i, a);
  each_active_lane(w, [&](int l) {
    auto* const b = reinterpret_cast<Mbarrier*>(
        bytes_at(w, i, Space::shared, a[l], sizeof(Mbarrier), l, Access::write));
    const auto count = static_cast<u16>(reg<u32>(w, i.b)[l]);
    *b = {count, count, 0, 0};
  });
}

void arrive(Warp& w, const Ins& i) {
  u64 a[kLanes];
  addresses(w, i, a);
  each_active_lane(w, [&](int l) {
    Mbarrier* const b = mbarrier_at(w, i, a[l], l);
    if (i.op == Op::mbar_expect) b->bytes += static_cast<s32>(reg<u32>(w, i.b)[l]);
    if (b->pending == 0) fault(w, i, kLaunchFailed, l, "mbarrier: more arrivals than it counts");
    --b->pending;
    complete_phase(w, i, b, l);
  });
}

// Whether the phase of this parity is complete: the one that goes on has the other one then.
void test_wait(Warp& w, const Ins& i) {
  u64 a[kLanes];
  addresses(w, i, a);
  bool all = true;
  each_active_lane(w, [&](int l) {
    const bool complete = mbarrier_at(w, i, a[l], l)->phase != (reg<u32>(w, i.b)[l] & 1);
    reg<s32>(w, i.d)[l] = complete ? -1 : 0;
    all = all && complete;
  });
  w.yields = !all;
}

}  // namespace

void complete_bytes(Warp& w, const Ins& i, Mbarrier* barrier, unsigned bytes, int lane) {
  barrier->bytes -= static_cast<s32>(bytes);
  complete_phase(w, i, barrier, lane);
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
