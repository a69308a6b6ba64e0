#include "vgpu/counters/kinds.h"

namespace vgpu {
namespace {

bool is_float(Type t) {
  return t == Type::f16 || t == Type::bf16 || t == Type::f32 || t == Type::f64;
}

Kind memory_kind(const Ins& i) {
  if (i.op == Op::atom) return Kind::atomic;
  const bool loads = i.op == Op::ld;
  switch (i.space) {
    case Space::shared:
    case Space::cluster:
      return loads ? Kind::shared_load : Kind::shared_store;
    case Space::local:
      return Kind::local;
    case Space::param:
    case Space::constant:
      return Kind::parameter;
    default:
      return loads ? Kind::global_load : Kind::global_store;
  }
}

}  // namespace

const char* name_of(Kind kind) {
  constexpr const char* names[] = {
      "integer",     "float",        "convert", "move",      "global_load", "global_store",
      "shared_load", "shared_store", "local",   "parameter", "atomic",      "async_copy",
      "tensor",      "lanes",        "barrier", "control",   "other"};
  static_assert(sizeof names / sizeof *names == kKinds);
  return names[static_cast<int>(kind)];
}

Kind kind_of(const Ins& i) {
  switch (i.op) {
    case Op::ld:
    case Op::st:
    case Op::atom:
      return memory_kind(i);
    case Op::ldmatrix:
      return Kind::shared_load;
    case Op::mov:
    case Op::pack:
    case Op::unpack:
      return Kind::move;
    case Op::cvt:
      return Kind::convert;
    case Op::mma:
    case Op::wgmma:
      return Kind::tensor;
    case Op::cp_async:
    case Op::bulk:
    case Op::tma:
    case Op::st_async:
      return Kind::async_copy;
    case Op::shfl:
    case Op::vote:
    case Op::activemask:
      return Kind::lanes;
    case Op::bra:
    case Op::ret:
    case Op::trap:
      return Kind::control;
    case Op::bar_sync:
    case Op::bar_arrive:
    case Op::bar_warp:
    case Op::cluster_arrive:
    case Op::cluster_wait:
    case Op::grid_wait:
    case Op::cp_commit:
    case Op::cp_wait:
    case Op::mbar_init:
    case Op::mbar_arrive:
    case Op::mbar_expect:
    case Op::mbar_wait:
    case Op::wgmma_fence:
    case Op::wgmma_commit:
    case Op::wgmma_wait:
    case Op::fence:
      return Kind::barrier;
    case Op::setmaxnreg:
    case Op::nothing:
      return Kind::other;
    default:
      return is_float(i.type) ? Kind::floating : Kind::integer;
  }
}

std::uint64_t flops_of(const Ins& i) {
  const auto k = static_cast<std::uint64_t>(i.vector);
  switch (i.op) {
    case Op::mma:
      return 2 * 16 * 8 * k;
    case Op::wgmma:  // 16 of the 64 rows are this warp's
      return 2 * 16 * static_cast<std::uint64_t>(i.imm) * k;
    case Op::fma:
    case Op::mad_lo:
      return is_float(i.type) ? 2 : 0;
    case Op::add:
    case Op::sub:
    case Op::mul_lo:
    case Op::div:
    case Op::rcp:
    case Op::sqrt:
    case Op::rsqrt:
    case Op::ex2:
    case Op::lg2:
    case Op::sin:
    case Op::cos:
    case Op::tanh:
      return is_float(i.type) ? 1 : 0;
    default:
      return 0;
  }
}

}  // namespace vgpu
