// cp.async: PTX ISA, "Data Movement and Conversion Instructions: Asynchronous copy". The bytes
// arrive as late as they may: when their group is waited for.
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
  copy.lanes = w.active, copy.size = size, copy.group = w.committed[first_active(w)];
  each_active_lane(w, [&](int l) {
    const unsigned take = i.c < 0 ? size : std::min(size, reg<u32>(w, i.c)[l]);
    if (w.committed[l] != copy.group)
      fault(w, i, kLaunchFailed, l,
            "cp.async: lanes of a warp with different groups are not supported");
    bytes_at(w, i, Space::shared, to[l], size, l, Access::write);
    for (unsigned at = static_cast<unsigned>(to[l]); at < to[l] + size; at += 4)
      m.writes[at / 4] = kUnderWay << 8 | (w.index + 1);
    copy.to[l] = static_cast<u32>(to[l]);
    std::memset(copy.data[l], 0, sizeof copy.data[l]);
    if (from[l] & (size - 1)) fault(w, i, kMisaligned, l, "cp.async from " + hex(from[l]));
    if (take) std::memcpy(copy.data[l], global_bytes(w, i, from[l], take, l, "cp.async"), take);
  });
}

void commit_group(Warp& w, const Ins&) {
  each_lane([&](int l) { w.committed[l] += w.active >> l & 1; });
}

void arrive(Warp& w, const AsyncCopy& copy) {
  SharedMemory& m = w.block->shared;
  for (u32 rest = copy.lanes; rest != 0; rest &= rest - 1) {
    const int l = std::countr_zero(rest);
    std::memcpy(m.bytes.data() + copy.to[l], copy.data[l], copy.size);
    for (unsigned at = copy.to[l]; at < copy.to[l] + copy.size; at += 4)
      m.writes[at / 4] = m.epoch << 8 | (w.index + 1);
  }
}
// imm: how many of the newest groups may stay under way.
void wait_group(Warp& w, const Ins& i) {
  if (i.combine) commit_group(w, i);  // wait_all
  const s64 oldest = static_cast<s64>(w.committed[first_active(w)]) - i.imm;
  std::erase_if(w.copies, [&](const AsyncCopy& copy) {
    if (static_cast<s64>(copy.group) >= oldest || (copy.lanes & ~w.active)) return false;
    arrive(w, copy);
    return true;
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
