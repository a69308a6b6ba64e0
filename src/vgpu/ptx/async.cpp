// Asynchronous copies and mbarriers: PTX ISA, "Data Movement and Conversion Instructions:
// Asynchronous copy" and "mbarrier".
#include "vgpu/ptx/families.h"

namespace vgpu::ptx {
namespace {

// cp.async.ca.shared.global [to], [from], 4 | 8 | 16{, bytes to read}
void decode_cp_async(Statement& s) {
  const bool all_levels = s.one_of({"ca", "cg"}) == 0;
  s.need(s.shared_space() && s.has("global"));
  s.skip({"L2::64B", "L2::128B", "L2::256B"});
  s.ins.space = Space::shared;
  s.address();
  s.comma();
  s.ins.b = s.address_operand();
  s.comma();
  const std::uint64_t size = s.immediate();
  s.need(size == 16 || (all_levels && (size == 4 || size == 8)));
  s.ins.vector = static_cast<std::uint8_t>(size);
  if (s.take(',')) s.ins.c = s.operand(Type::u32);
}

// cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes{.multicast::cluster}
//   [to], [from], size, [mbarrier]{, blocks}; from shared memory: .shared::cluster.shared::cta;
// .tensor: [to], [map, {coordinates}], [mbarrier]{, blocks}
void decode_cp_bulk(Statement& s) {
  const bool tensor = s.has("tensor");
  s.need(s.has("shared::cluster"));
  const bool shared = !tensor && s.has("shared::cta");
  s.need(shared || s.has("global"));
  s.need(s.has("mbarrier::complete_tx::bytes"));
  const bool multicast = !shared && s.has("multicast::cluster");
  s.ins.combine = static_cast<std::uint8_t>((multicast ? 1 : 0) + (shared ? 2 : 0));
  s.ins.space = Space::cluster;
  s.ins.op = tensor ? Op::tma : Op::bulk;
  if (tensor) {
    const int rank = s.one_of({"1d", "2d", "3d", "4d", "5d"}) + 1;
    s.need(rank > 0);
    s.skip({"tile"});
    s.ins.vector = static_cast<std::uint8_t>(rank);
  }
  s.address();
  s.comma();
  if (tensor) {
    s.expect('[');
    s.ins.b = s.operand(Type::u64);
    s.comma();
    s.need(s.list(Type::s32) == s.ins.vector);
    s.expect(']');
  } else {
    s.ins.b = s.address_operand();
    s.ins.width = static_cast<std::uint8_t>(s.lanes_bytes(s.ins.b));
    s.ins.e = s.next(Type::u32);
  }
  s.comma();
  s.ins.c = s.address_operand();
  if (!multicast) return;
  s.comma();
  s.list(Type::b16);
}

}  // namespace

void decode_cp(Statement& s) {
  s.need(s.has("async"));
  if (s.has("bulk")) return decode_cp_bulk(s);
  const int which = s.one_of({"commit_group", "wait_group", "wait_all"});
  if (which < 0) return decode_cp_async(s);
  s.ins.op = which == 0 ? Op::cp_commit : Op::cp_wait;
  if (which == 1) s.ins.imm = static_cast<std::int64_t>(s.immediate());
  if (which == 2) s.ins.combine = 1;  // commits first
}

// mbarrier.init [b], count; .arrive _, [b]{, count}; .arrive.expect_tx _, [b], bytes;
// .try_wait.parity p, [b], parity. Arrivals may be at another block's barrier: .shared::cluster
void decode_mbarrier(Statement& s) {
  const int which = s.one_of({"init", "arrive", "try_wait", "test_wait"});
  s.need(which >= 0);
  const bool expects = s.has("expect_tx");
  s.need(!expects || which == 1);
  s.need(which < 2 || s.has("parity"));
  const bool relaxed = s.has("relaxed"), wider = s.has("cluster");
  s.skip({"release", "acquire", "cta"});
  const bool remote = which == 1 && s.has("shared::cluster");
  s.need(remote || s.shared_space());
  s.type({Type::b64});
  s.ins.space = remote ? Space::cluster : Space::shared;
  s.ins.combine = relaxed ? 2 : wider ? 1 : 0;
  s.ins.type = Type::b64;
  if (which == 0) {
    s.ins.op = Op::mbar_init;
    s.address();
    s.ins.b = s.next(Type::u32);
  } else if (which == 1) {
    s.ins.op = expects ? Op::mbar_expect : Op::mbar_arrive;
    if (s.operand(Type::u64) >= 0) s.fail("mbarrier.arrive with a state");
    s.comma();
    s.address();
    if (expects)
      s.ins.b = s.next(Type::u32);
    else if (s.take(','))
      s.ins.c = s.operand(Type::u32);
  } else {
    s.ins.op = Op::mbar_wait;
    s.ins.d = s.operand(Type::pred);
    s.comma();
    s.address();
    s.ins.b = s.next(Type::u32);
  }
}

// st.async.mbarrier::complete_tx::bytes.shared::cluster{.v2, .v4}.type [to], value, [mbarrier]
void decode_st_async(Statement& s) {
  s.ins.op = Op::st_async;
  s.skip({"weak"});
  s.need(s.has("shared::cluster") && s.has("mbarrier::complete_tx::bytes"));
  s.ins.space = Space::cluster;
  const int vector = s.one_of({"v2", "v4"});
  s.ins.vector = vector < 0 ? 1 : vector == 0 ? 2 : 4;
  s.ins.type = s.type(
      {Type::b32, Type::u32, Type::s32, Type::f32, Type::b64, Type::u64, Type::s64, Type::f64});
  s.address();
  s.comma();
  s.need(s.list(s.ins.type) == s.ins.vector);
  s.list_width();
  s.comma();
  s.ins.b = s.address_operand();
}

}  // namespace vgpu::ptx
