// A warp: which of its lanes run, until it has to wait for other warps.
//
// A diverged warp is a set of groups of lanes, each with its own place in the program; the group
// that is furthest behind runs, and groups that meet are merged. An instruction that names lanes
// (bar.sync, shfl.sync, mma.sync) parks its group until they are there; if they cannot come, that
// is reported.
#include "block.h"
#include "fault.h"
#include "types.h"
#include "vgpu/counters/count.h"

namespace vgpu {
namespace {

// Lanes of other groups that are where this one is.
u32 take_groups_here(Warp& w) {
  u32 lanes = 0;
  std::erase_if(w.other_groups, [&](const LaneGroup& g) {
    if (g.pc != w.pc) return false;
    lanes |= g.lanes;
    return true;
  });
  return lanes;
}
// The group that can run and is furthest behind, or -1.
int furthest_behind(const Warp& w) {
  int next = -1;
  for (std::size_t k = 0; k < w.other_groups.size(); ++k) {
    const LaneGroup& g = w.other_groups[k];
    if (!g.parked && (next < 0 || g.pc < w.other_groups[next].pc)) next = static_cast<int>(k);
  }
  return next;
}
void merge_groups(Warp& w) {
  const u32 lanes = w.active | take_groups_here(w);
  const int next = furthest_behind(w);
  if (next >= 0 && w.other_groups[next].pc < w.pc) {
    const LaneGroup g = w.other_groups[next];
    w.other_groups[next] = {w.pc, lanes, false};
    w.pc = g.pc;
    set_active(w, g.lanes);
    merge_groups(w);
  } else if (lanes != w.active) {
    set_active(w, lanes);
  }
}
// After a group ended or was parked: another, or false where there is none that can run.
bool resume_another(Warp& w) {
  int next = furthest_behind(w);
  if (next < 0 && w.exited_some) {  // fewer lanes may be needed now
    w.exited_some = false;
    for (LaneGroup& g : w.other_groups) g.parked = false;
    next = furthest_behind(w);
  }
  if (next < 0) return false;
  const LaneGroup g = w.other_groups[next];
  w.other_groups.erase(w.other_groups.begin() + next);
  w.pc = g.pc;
  set_active(w, g.lanes);
  merge_groups(w);
  return true;
}
// Whether the lanes that a warp-wide instruction needs are here; parks the group if not.
bool gathered(Warp& w, const Ins& i, u32 needed) {
  if ((w.active & needed) == needed) return true;
  const u32 here = w.active | take_groups_here(w);
  set_active(w, here);
  if ((here & needed) == needed) return true;
  w.other_groups.push_back({w.pc, here, true});
  if (resume_another(w)) return false;
  fault(w, i, kLaunchFailed, std::countr_zero(here),
        "a warp-wide instruction reached by lanes " + hex(here) + " only; it needs " + hex(needed));
}

// The lanes that have to be there before an instruction is executed; 0 where that does not matter.
u32 lanes_needed(const Warp& w, const Ins& i) {
  switch (i.op) {
    case Op::bar_sync:
      return w.live;
    case Op::bar_warp:
      return reg<u32>(w, i.a)[first_active(w)] & w.live;
    case Op::shfl:
      return reg<u32>(w, list_of(w, i)[5])[first_active(w)] & w.live;
    case Op::mma:
    case Op::ldmatrix:
    case Op::wgmma:
      return kAllLanes;
    default:
      return 0;
  }
}

void branch(Warp& w, const Ins& i) {
  if (w.counts) count_instruction(w, i);
  u32 taken = w.active;
  if (i.pred >= 0) {
    taken = bits_of(reg<s32>(w, i.pred));
    if (i.negated) taken = ~taken;
    taken &= w.active;
  }
  const int target = static_cast<int>(i.imm);
  if (taken == w.active) {
    w.pc = target;
  } else {
    if (taken != 0) {
      w.other_groups.push_back({target, taken, false});
      set_active(w, w.active & ~taken);
    }
    ++w.pc;
  }
}

// Ends the active lanes, of the group's `lanes`; false where the warp has ended.
bool end_lanes(Warp& w, const Ins& i, u32 lanes) {
  if (w.counts) count_instruction(w, i);
  const u32 rest = lanes & ~w.active;
  w.live &= ~w.active;
  w.exited_some = true;
  if (rest) {
    set_active(w, rest);
    ++w.pc;
    return true;
  }
  if (w.live == 0) return false;
  if (!resume_another(w))
    fault(
        w, i, kLaunchFailed, std::countr_zero(w.live),
        "the lanes " + hex(w.live) + " wait at a warp-wide instruction for lanes that have exited");
  return true;
}

void arrive_at_barrier(Warp& w, const Ins& i) {
  if (w.counts) count_instruction(w, i);
  const int lane = first_active(w);
  w.waits_at = static_cast<int>(reg<u32>(w, i.a)[lane] & 15);
  w.block->barriers[w.waits_at].expected = i.b < 0 ? 0 : reg<u32>(w, i.b)[lane];
}

// Restricts the active lanes to those whose predicate holds; false where none is left.
bool apply_predicate(Warp& w, const Ins& i) {
  const s32* const predicate = reg<s32>(w, i.pred);
  const s32 flip = i.negated ? -1 : 0;
  each_lane([&](int l) { w.predicated_mask[l] = w.group_mask[l] & (predicate[l] ^ flip); });
  const u32 lanes = bits_of(w.predicated_mask);
  if (lanes == 0) return false;
  if (lanes != w.active) w.active = lanes, w.all_active = false, w.active_mask = w.predicated_mask;
  return true;
}

}  // namespace

Stop run_warp(Warp& w) {
  const Program& p = *w.program;
  const Ins* const instructions = p.code->ins.data();
  const Handler* const handlers = p.handlers.data();
  while (true) {
    if (instructions[w.pc].leader && !w.other_groups.empty()) merge_groups(w);
    const Ins& i = instructions[w.pc];
    ++w.steps;
    if (i.op == Op::bra) {
      branch(w, i);
      continue;
    }
    const u32 group = w.active;
    const bool all_active = w.all_active;
    if (i.pred >= 0 && !apply_predicate(w, i)) {
      ++w.pc;
      continue;
    }
    const bool predicated = w.active != group;
    if (i.op == Op::ret) {
      if (end_lanes(w, i, group)) continue;
      return Stop::done;
    }
    if (const u32 needed = lanes_needed(w, i); needed && !gathered(w, i, needed)) continue;
    if (i.op == Op::bar_sync && w.pc != p.dropped_barrier) {
      arrive_at_barrier(w, i);
      ++w.pc;
      return Stop::barrier;
    }
    handlers[w.pc](w, i);
    if (predicated) w.active = group, w.all_active = all_active, w.active_mask = w.group_mask;
    ++w.pc;
    if (w.yields) {
      w.yields = false;
      return Stop::yield;
    }
  }
}

}  // namespace vgpu
