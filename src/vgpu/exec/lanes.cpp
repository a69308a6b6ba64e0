// Exchange between the lanes of a warp: PTX ISA, "shfl.sync", "vote.sync", "activemask".
#include <cstring>

#include "fault.h"
#include "types.h"

namespace vgpu {
namespace {

// The lane that lane l reads from, by the manual's pseudo code; sets whether that is in its
// segment.
int source_lane(int mode, int l, u32 distance, u32 c, bool* inside) {
  const int b = distance & 31, clamp = c & 31, segment = c >> 8 & 31;
  const int most = (l & segment) | (clamp & ~segment), least = l & segment;
  int from;
  switch (mode) {
    case 0:  // up
      from = l - b, *inside = from >= most;
      break;
    case 1:  // down
      from = l + b, *inside = from <= most;
      break;
    case 2:  // bfly
      from = l ^ b, *inside = from <= most;
      break;
    default:  // idx
      from = least | (b & ~segment), *inside = from <= most;
  }
  return *inside ? from : l;
}

void shuffle(Warp& w, const Ins& i) {
  const int* const operands = list_of(w, i);  // d, p, a, b, c, members
  u32 a[kLanes];
  std::memcpy(a, reg<u32>(w, operands[2]), sizeof a);
  const u32 *const b = reg<u32>(w, operands[3]), *const c = reg<u32>(w, operands[4]);
  each_active_lane(w, [&](int l) {
    bool inside;
    const int from = source_lane(i.combine, l, b[l], c[l], &inside);
    if (!(w.active >> from & 1))
      fault(w, i, kLaunchFailed, l,
            "shfl.sync from lane " + std::to_string(from) + ", which does not take part");
    if (operands[0] >= 0) reg<u32>(w, operands[0])[l] = a[from];
    if (operands[1] >= 0) reg<s32>(w, operands[1])[l] = inside ? -1 : 0;
  });
}

// Among the lanes that each lane's mask names.
void vote(Warp& w, const Ins& i) {
  const u32 ballot = bits_of(reg<s32>(w, i.a)) & w.active;
  u32 members[kLanes];
  std::memcpy(members, reg<u32>(w, i.b), sizeof members);
  if (i.combine == 0) {
    write_lanes(w, reg<u32>(w, i.d), [&](int l) { return ballot & members[l]; });
    return;
  }
  write_lanes(w, reg<s32>(w, i.d), [&](int l) {
    const bool any = ballot & members[l], all = (ballot & members[l]) == (w.live & members[l]);
    return (i.combine == 1 ? any : i.combine == 2 ? all : all || !any) ? -1 : 0;
  });
}

void active_mask(Warp& w, const Ins& i) {
  write_lanes(w, reg<u32>(w, i.d), [&](int) { return w.active; });
}

}  // namespace

Handler lanes_handler(const Ins& i) {
  switch (i.op) {
    case Op::shfl:
      return shuffle;
    case Op::vote:
      return vote;
    case Op::activemask:
      return active_mask;
    default:
      return nullptr;
  }
}

}  // namespace vgpu
