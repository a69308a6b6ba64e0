// cp.async: PTX ISA, "Data Movement and Conversion Instructions: Asynchronous copy". The bytes
// arrive as late as they may: when the thread that copied waits for their group. Until then nobody
// may look; afterwards it is as if that thread had written them.
#include <algorithm>
#include <cstring>

#include "block.h"
#include "fault.h"
#include "load_store.h"
#include "types.h"

namespace vgpu {
namespace {

void start_copy(Warp& w, const Ins& i) {
  u64 to[kLanes];
  addresses(w, i, to);
  const u64* const from = reg<u64>(w, i.b);
  const unsigned size = i.vector;
  SharedMemory& m = w.block->shared;
  AsyncCopy& copy = w.copies.emplace_back();
  copy.lanes = w.active, copy.size = size, copy.pc = w.pc;
  each_active_lane(w, [&](int l) {
    const unsigned take = i.c < 0 ? size : std::min(size, reg<u32>(w, i.c)[l]);
    if (to[l] & (size - 1))
      fault(w, i, kMisaligned, l,
            "cp.async to address " + hex(to[l]) + ", no multiple of " + std::to_string(size));
    if (from[l] & (size - 1))
      fault(w, i, kMisaligned, l,
            "cp.async from address " + hex(from[l]) + ", no multiple of " + std::to_string(size));
    copy.group[l] = w.committed[l];
    copy.to[l] = static_cast<u32>(to[l]);
    std::memset(copy.data[l], 0, sizeof copy.data[l]);
    if (take) std::memcpy(copy.data[l], global_bytes(w, i, from[l], take, l, "cp.async"), take);
    char* const target = shared_bytes(w, i, *w.block, to[l], size, l, Access::store);
    note_write(m, copy.to[l], copy.to[l] + size, kUnderWay, w.column, w.pc);
    std::memset(target, 0xff, size);
  });
}

void commit_group(Warp& w, const Ins&) {
  each_lane([&](int l) { w.committed[l] += w.active >> l & 1; });
}

void arrive(Warp& w, const AsyncCopy& copy, int lane) {
  SharedMemory& m = w.block->shared;
  std::memcpy(m.bytes.data() + copy.to[lane], copy.data[lane], copy.size);
  note_write(m, copy.to[lane], copy.to[lane] + copy.size, stamp_of(w.block->clock.now, lane),
             w.column, copy.pc);
}
// imm: how many of the newest groups may stay under way.
void wait_group(Warp& w, const Ins& i) {
  if (i.combine) commit_group(w, i);  // wait_all
  note_access(*w.block, w.column);
  std::erase_if(w.copies, [&](AsyncCopy& copy) {
    each_active_lane(w, [&](int l) {
      const s64 left = static_cast<s64>(w.committed[l]) - copy.group[l];  // 1: the newest
      if (!(copy.lanes >> l & 1) || left <= i.imm) return;
      arrive(w, copy, l);
      copy.lanes &= ~(1u << l);
    });
    return copy.lanes == 0;
  });
}

}  // namespace

Handler async_copy_handler(const Ins& i) {
  switch (i.op) {
    case Op::cp_async:
      return start_copy;
    case Op::cp_commit:
      return commit_group;
    case Op::cp_wait:
      return wait_group;
    default:
      return nullptr;
  }
}

}  // namespace vgpu
