// A warp: which of its lanes run, until it has to wait for other warps.
//
// A diverged warp is a set of groups of lanes, each with its own place in the program; the group
// that is furthest behind runs, and groups that meet are merged. An instruction that names lanes
// (bar.sync, shfl.sync, mma.sync) parks its group until they are there; if they cannot come, that
// is reported.
#include <algorithm>
#include <array>

#include "cluster.h"
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
    if (!g.parked && !g.waits && (next < 0 || g.pc < w.other_groups[next].pc))
      next = static_cast<int>(k);
  }
  return next;
}
// The same, or where all of them wait: another turn for each.
int next_in_turn(Warp& w) {
  if (const int next = furthest_behind(w); next >= 0) return next;
  for (LaneGroup& g : w.other_groups) g.waits = false;
  return furthest_behind(w);
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
  int next = next_in_turn(w);
  if (next < 0 && w.exited_some) {  // fewer lanes may be needed now
    w.exited_some = false;
    for (LaneGroup& g : w.other_groups) g.parked = false;
    next = next_in_turn(w);
  }
  if (next < 0) return false;
  const LaneGroup g = w.other_groups[next];
  w.other_groups.erase(w.other_groups.begin() + next);
  w.pc = g.pc;
  set_active(w, g.lanes);
  merge_groups(w);
  return true;
}
// A group waits for a phase: another one of the warp may be who completes it.
void rotate_groups(Warp& w) {
  const int next = next_in_turn(w);
  if (next < 0) return;
  const LaneGroup g = w.other_groups[next];
  w.other_groups.erase(w.other_groups.begin() + next);
  w.other_groups.push_back({w.pc, w.active, false, true});
  w.pc = g.pc;
  set_active(w, g.lanes);
}

const char* name_of(Op op) {
  switch (op) {
    case Op::bar_sync:
      return "bar.sync";
    case Op::bar_arrive:
      return "bar.arrive";
    case Op::bar_warp:
      return "bar.warp.sync";
    case Op::shfl:
      return "shfl.sync";
    case Op::vote:
      return "vote.sync";
    case Op::mma:
      return "mma.sync";
    case Op::ldmatrix:
      return "ldmatrix.sync";
    case Op::cluster_arrive:
      return "barrier.cluster.arrive.aligned";
    case Op::cluster_wait:
      return "barrier.cluster.wait.aligned";
    default:
      return "wgmma";
  }
}
// Lanes wait for others, which have come to something else or have ended.
[[noreturn]] void report_missing_lanes(const Warp& w, const Ins& i, u32 here, u32 needed) {
  std::string text = std::string("divergent warp: lanes ") + hex(here) + " are in " +
                     name_of(i.op) + " here, which needs lanes " + hex(needed);
  for (const LaneGroup& g : w.other_groups) {
    if (g.pc == w.pc || !(g.lanes & needed)) continue;
    text += "; lanes " + hex(g.lanes) + " wait in " + name_of(w.program->code->ins[g.pc].op) +
            " at " + place_of(w, g.pc);
  }
  if (const u32 ended = needed & ~w.live) text += "; lanes " + hex(ended) + " have ended";
  fault(w, i, kLaunchFailed, std::countr_zero(here), text);
}
// Whether the lanes that a warp-wide instruction needs are here; parks the group if not.
bool gathered(Warp& w, const Ins& i, u32 needed) {
  if ((w.active & needed) == needed) return true;
  const int pc = w.pc;
  const u32 here = w.active | take_groups_here(w);
  set_active(w, here);
  if ((here & needed) == needed) return true;
  w.other_groups.push_back({w.pc, here, true});
  if (resume_another(w)) return false;
  w.pc = pc;
  report_missing_lanes(w, i, here, needed);
}

// The lanes that have to be there before an instruction is executed; 0 where that does not matter.
u32 lanes_needed(const Warp& w, const Ins& i) {
  const auto members = [&](int slot) {  // lanes may have masks of their own
    const u32* const masks = reg<u32>(w, slot);
    u32 all = 0;
    each_active_lane(w, [&](int l) {
      all |= masks[l];
      if (!(masks[l] >> l & 1))
        fault(w, i, kLaunchFailed, l,
              std::string(name_of(i.op)) + ": the mask " + hex(masks[l]) +
                  " does not name the calling lane");
    });
    return all;
  };
  switch (i.op) {
    case Op::bar_sync:
    case Op::bar_arrive:
      return w.live;
    case Op::cluster_arrive:
    case Op::cluster_wait:
      return i.combine & kAligned ? w.live : 0;
    case Op::bar_warp:
      return members(i.a) & w.live;
    case Op::shfl:
      return members(list_of(w, i)[5]) & w.live;
    case Op::vote:
      return members(i.b) & w.live;
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
  leave_cluster_barrier(w, w.active);
  w.exited_some = true;
  if (rest) {
    set_active(w, rest);
    ++w.pc;
    return true;
  }
  if (w.live == 0) return false;
  if (!resume_another(w))
    fault(w, i, kLaunchFailed, std::countr_zero(w.live),
          "the lanes " + hex(w.live) + " wait for lanes that have ended");
  return true;
}

// __syncthreads() by some threads of a block, while others have ended.
void check_all_live(const Warp& w, const Ins& i) {
  const unsigned lanes = std::min<unsigned>(kLanes, w.block->threads - kLanes * w.index);
  const u32 all = lanes == kLanes ? kAllLanes : (1u << lanes) - 1;
  if (w.live == all) return;
  fault(w, i, kLaunchFailed, first_active(w),
        "divergent barriers: this thread waits in bar.sync, " +
            thread_name(w, w.index, std::countr_zero(all & ~w.live)) + " has ended");
}

void complete_barrier(Warp& w, u32 id) {
  Barrier& b = w.block->barriers[id];
  for (int k = 0; k < w.block->warp_count; ++k) {
    Warp& waiting = w.block->warps[k];
    if (waiting.waits_at != static_cast<int>(id)) continue;
    waiting.waits_at = -1;
    acquire(waiting, waiting.live, b.knowledge);
  }
  w.block->progressed = true;
  b = {};
}

// bar.sync and bar.arrive. The lanes of the warp are all here.
void arrive_at_barrier(Warp& w, const Ins& i) {
  if (w.counts) count_instruction(w, i);
  const int lane = first_active(w);
  const u32 id = reg<u32>(w, i.a)[lane], expected = i.b < 0 ? 0 : reg<u32>(w, i.b)[lane];
  if (id > 15 || expected % kLanes)
    fault(w, i, kLaunchFailed, lane,
          "barrier " + std::to_string(id) + " with " + std::to_string(expected) +
              " threads: there are 16 barriers, for multiples of 32 threads");
  Barrier& b = w.block->barriers[id];
  if (b.arrived == 0) b.pc = w.pc, b.first_warp = w.index, b.expected = expected;
  const auto meets = [&](const std::string& how) {
    fault(w, i, kLaunchFailed, lane,
          "divergent barriers: barrier " + std::to_string(id) + " here" + how + ", and warp " +
              std::to_string(b.first_warp) + " waits at it at " + place_of(w, b.pc));
  };
  if (b.expected != expected) meets(" with another number of threads");
  if (expected == 0 && b.pc != w.pc) meets("");
  if (expected == 0) check_all_live(w, i);
  synchronize_lanes(w, w.live);
  release(w, w.live, &b.knowledge);
  b.arrived += kLanes;
  if (i.op == Op::bar_sync) w.waits_at = static_cast<int>(id);
  if (b.arrived == (expected ? expected : kLanes * w.block->warp_count)) complete_barrier(w, id);
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

// After an instruction with a predicate: the whole group again.
void set_group_active(Warp& w, u32 group) {
  w.active = group, w.all_active = group == w.live, w.active_mask = w.group_mask;
}

// An instruction that needs lanes which are not all active: those whose predicate does not hold go
// on without it, as a group of their own.
void leave_others(Warp& w, u32 group) {
  const u32 rest = group & ~w.active, here = w.active;
  w.other_groups.push_back({w.pc + 1, rest, false});
  set_active(w, here);
}

// Whether lanes or warps meet in an instruction: all others are executed as they come.
constexpr bool meets(Op op) {
  switch (op) {
    case Op::bar_sync:
    case Op::bar_arrive:
    case Op::bar_warp:
    case Op::shfl:
    case Op::vote:
    case Op::mma:
    case Op::ldmatrix:
    case Op::wgmma:
    case Op::cluster_arrive:
    case Op::cluster_wait:
      return true;
    default:
      return false;
  }
}
constexpr auto kMeets = [] {
  std::array<bool, 256> table{};
  for (int op = 0; op < 256; ++op) table[op] = meets(static_cast<Op>(op));
  return table;
}();

// Executes the instruction at w.pc for the active lanes, of the group's `group`; false where they
// have to wait.
bool execute(Warp& w, const Ins& i, Handler handler, u32 group) {
  if (const u32 needed = lanes_needed(w, i); needed && (w.active & needed) != needed) {
    if (w.active != group) leave_others(w, group);
    if (!gathered(w, i, needed)) return false;
    return execute(w, i, handler, w.active);
  }
  if (w.products_under_way) check_registers_of_products(w, i);
  const bool barrier = i.op == Op::bar_sync || i.op == Op::bar_arrive;
  if (barrier)
    arrive_at_barrier(w, i);
  else
    handler(w, i);
  if (w.active != group) set_group_active(w, group);
  ++w.pc;
  return true;
}

Stop yield(Warp& w) {
  w.yields = false;
  rotate_groups(w);
  return Stop::yield;
}

// Most instructions are plain: executed as they come, by all lanes of the group.
constexpr u8 kPlain = 1, kLeader = 2;

}  // namespace

std::vector<u8> steps_of(const Code& code) {
  std::vector<u8> steps;
  for (const Ins& i : code.ins) {
    const bool plain =
        i.pred < 0 && i.op != Op::bra && i.op != Op::ret && !kMeets[static_cast<int>(i.op)];
    steps.push_back((plain ? kPlain : 0) | (i.leader ? kLeader : 0));
  }
  return steps;
}

Stop run_warp(Warp& w) {
  const Program& p = *w.program;
  const Ins* const instructions = p.code->ins.data();
  const Handler* const handlers = p.handlers.data();
  const u8* const steps = p.steps.data();
  while (true) {
    if ((steps[w.pc] & kLeader) && !w.other_groups.empty()) merge_groups(w);
    const Ins& i = instructions[w.pc];
    if ((steps[w.pc] & kPlain) && !w.products_under_way) {
      handlers[w.pc](w, i);
      ++w.pc;
      if (!w.yields) continue;
      return yield(w);
    }
    if (i.op == Op::bra) {
      branch(w, i);
      continue;
    }
    const u32 group = w.active;
    if (i.pred >= 0 && !apply_predicate(w, i)) {
      ++w.pc;
      continue;
    }
    if (!kMeets[static_cast<int>(i.op)] && i.op != Op::ret) {
      if (w.products_under_way) check_registers_of_products(w, i);
      handlers[w.pc](w, i);
      if (w.active != group) set_group_active(w, group);
      ++w.pc;
      if (!w.yields) continue;
      return yield(w);
    }
    if (i.op == Op::ret) {
      if (end_lanes(w, i, group)) continue;
      return Stop::done;
    }
    if (!execute(w, i, handlers[w.pc], group)) continue;
    if (w.waits_at >= 0) return Stop::barrier;
    if (w.yields) return yield(w);
  }
}

}  // namespace vgpu
