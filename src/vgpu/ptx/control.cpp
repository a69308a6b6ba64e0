// Branches, barriers and what the lanes of a warp do together: PTX ISA, "Control Flow Instructions"
// and "Parallel Synchronization and Communication Instructions".
#include "vgpu/ptx/families.h"

namespace vgpu::ptx {

void decode_bra(Statement& s) {
  s.skip({"uni"});
  s.branch_target();
}

// ret, exit and trap. (A ret of a function that is called: in kernel.cpp.)
void decode_ret(Statement& s) { s.skip({"uni"}); }

namespace {

// barrier.cluster.arrive{.release, .relaxed}{.aligned}; barrier.cluster.wait{.acquire}{.aligned}
void decode_cluster_barrier(Statement& s) {
  const bool arrives = s.has("arrive");
  s.need(arrives || s.has("wait"));
  s.ins.op = arrives ? Op::cluster_arrive : Op::cluster_wait;
  if (arrives && s.has("relaxed")) s.ins.combine = 1;
  s.skip({arrives ? "release" : "acquire"});
  if (s.has("aligned")) s.ins.combine |= kAligned;
}

}  // namespace

// bar.sync a{, threads}; bar.arrive a, threads; barrier.sync.aligned; bar.warp.sync mask
void decode_bar(Statement& s) {
  if (s.mnemonic() == "barrier" && s.has("cluster")) return decode_cluster_barrier(s);
  const bool warp = s.has("warp"), arrives = !warp && s.has("arrive");
  s.need(arrives || s.has("sync"));
  if (arrives) s.ins.op = Op::bar_arrive;
  s.skip({"cta", "aligned"});
  if (warp) s.ins.op = Op::bar_warp;
  s.ins.a = s.operand(Type::u32);
  if (!warp && s.take(',')) s.ins.b = s.operand(Type::u32);
  s.need(!arrives || s.ins.b >= 0);
}

// shfl.sync d|p, a, b, c, mask
void decode_shfl(Statement& s) {
  s.need(s.has("sync"));
  const int mode = s.one_of({"up", "down", "bfly", "idx"});
  s.need(mode >= 0);
  s.ins.combine = static_cast<std::uint8_t>(mode);
  s.ins.type = s.type({Type::b32});
  s.list(Type::b32);
  if (s.take('|'))
    s.list(Type::pred);
  else
    s.list_nothing();
  s.ins.list_defs = 2;
  for (int k = 0; k < 4; ++k) {
    s.comma();
    s.list(Type::b32);
  }
}

// vote.sync.ballot.b32 d, p, mask; vote.sync.any.pred q, p, mask; activemask.b32 d
void decode_vote(Statement& s) {
  if (s.ins.op == Op::activemask) {
    s.ins.type = s.type({Type::b32});
    s.ins.d = s.operand(Type::b32);
    return;
  }
  s.need(s.has("sync"));
  const int mode = s.one_of({"ballot", "any", "all", "uni"});
  s.need(mode >= 0);
  s.ins.combine = static_cast<std::uint8_t>(mode);
  s.ins.type = s.type({mode == 0 ? Type::b32 : Type::pred});
  s.ins.d = s.operand(s.ins.type);
  s.ins.a = s.next(Type::pred);
  s.ins.b = s.next(Type::u32);
}

void decode_setmaxnreg(Statement& s) {
  const int which = s.one_of({"dec", "inc"});
  s.need(which >= 0 && s.has("sync") && s.has("aligned"));
  s.ins.combine = static_cast<std::uint8_t>(which);
  s.type({Type::u32});
  const std::uint64_t count = s.immediate();
  if (count < 24 || count > 256 || count % 8)
    s.fail("setmaxnreg: " + std::to_string(count) + " is no multiple of 8 from 24 to 256");
  s.ins.imm = static_cast<std::int64_t>(count);
}

// griddepcontrol.launch_dependents says that kernels which depend on this one may begin: here they
// run after it, but may not rely on that.
void decode_griddepcontrol(Statement& s) {
  const int which = s.one_of({"launch_dependents", "wait"});
  s.need(which >= 0);
  if (which == 1) s.ins.op = Op::grid_wait;
}

// mapa{.shared::cluster}.type d, address, rank; getctarank{.shared::cluster}.type d, address
void decode_mapa(Statement& s) {
  s.ins.combine = s.has("shared::cluster") ? 1 : 0;
  const Type t = s.ins.type = s.type({Type::u32, Type::u64});
  const bool maps = s.ins.op == Op::mapa;
  s.ins.d = s.operand(maps ? t : Type::u32);
  s.ins.a = s.next(t);
  if (maps) s.ins.b = s.next(Type::u32);
}

}  // namespace vgpu::ptx
