// Moves, loads, stores and atomics: PTX ISA, "Data Movement and Conversion Instructions" and
// "Parallel Synchronization and Communication Instructions: atom, red, membar, fence".
#include "vgpu/ptx/families.h"

namespace vgpu::ptx {
namespace {

// Accesses run one after another, in the order of the program, and there are no caches: what says
// how strong an access is, who sees it and where it is kept makes no difference.
void skip_strength_and_caching(Statement& s) {
  s.skip({"weak", "volatile", "relaxed", "acquire", "release", "acq_rel"});
  s.skip({"cta", "cluster", "gpu", "sys"});
  s.skip({"ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc"});
  s.skip({"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last",
          "L1::no_allocate", "L2::evict_normal", "L2::evict_first", "L2::evict_last", "L2::64B",
          "L2::128B", "L2::256B"});
}

Space space(Statement& s) {
  if (s.has("shared::cluster")) return Space::cluster;
  if (s.shared_space()) return Space::shared;
  constexpr Space spaces[] = {Space::global, Space::local, Space::param, Space::constant};
  const int which = s.one_of({"global", "local", "param", "const"});
  return which < 0 ? Space::generic : spaces[which];
}

// .v2, .v4 and the type, whose elements are 16 bytes together at most.
void vector_and_type(Statement& s) {
  const int which = s.one_of({"v2", "v4"});
  s.ins.vector = which < 0 ? 1 : which == 0 ? 2 : 4;
  s.ins.type =
      s.type({Type::b8, Type::u8, Type::s8, Type::b16, Type::u16, Type::s16, Type::b32, Type::u32,
              Type::s32, Type::f32, Type::b64, Type::u64, Type::s64, Type::f64});
  s.need(s.ins.vector * size_of(s.ins.type) <= 16);
}

// The two halves of the type, in braces.
int halves(Statement& s, Type type) {
  s.need(size_of(type) >= 4);
  const Type half = size_of(type) == 8 ? Type::b32 : Type::b16;
  const int count = s.list(half);
  s.need(count == 2);
  s.ins.vector = 2;
  return count;
}

}  // namespace

// mov d, a; mov {low, high}, a; mov d, {low, high}
void decode_mov(Statement& s) {
  const Type t = s.ins.type =
      s.type({Type::pred, Type::b16, Type::b32, Type::b64, Type::u16, Type::u32, Type::u64,
              Type::s16, Type::s32, Type::s64, Type::f32, Type::f64});
  if (s.at_list()) {
    s.ins.op = Op::unpack;
    s.ins.list_defs = halves(s, t);
    s.ins.a = s.next(t);
    return;
  }
  s.ins.d = s.operand(t);
  s.comma();
  if (s.at_list()) {
    s.ins.op = Op::pack;
    halves(s, t);
  } else {
    s.ins.a = s.operand(t);
  }
}

// Global addresses are generic ones; shared, parameter and local memory are windows above them.
void decode_cvta(Statement& s) {
  const bool to = s.has("to");
  const Space from = s.ins.space = space(s);
  s.ins.type = s.type({Type::u64});
  s.ins.d = s.operand(Type::u64);
  s.ins.a = s.next(Type::u64);
  if (from == Space::global || from == Space::constant) return;
  s.need(from != Space::generic);
  const bool shared = from == Space::shared || from == Space::cluster;
  const std::uint64_t window = shared ? 1 : from == Space::param ? 2 : 3;
  s.ins.combine = static_cast<std::uint8_t>(from);
  s.ins.op = to ? Op::sub : Op::add;
  s.ins.b = s.constant(window << 56, RegClass::b64);
}

void decode_ld(Statement& s) {
  skip_strength_and_caching(s);
  s.ins.space = space(s);
  vector_and_type(s);
  s.ins.list_defs = s.list(s.ins.type, true);
  s.need(s.ins.list_defs == s.ins.vector);
  s.list_width();
  s.comma();
  s.address();
}

void decode_st(Statement& s) {
  if (s.has("async")) return decode_st_async(s);
  skip_strength_and_caching(s);
  s.ins.space = space(s);
  s.need(s.ins.space != Space::constant);
  vector_and_type(s);
  s.address();
  s.need(s.ins.space != Space::param);  // of a call they are local memory now
  s.comma();
  s.need(s.list(s.ins.type, true) == s.ins.vector);
  s.list_width();
}

// atom and red, which has no destination.
void decode_atom(Statement& s) {
  skip_strength_and_caching(s);
  s.ins.space = space(s);
  s.need(s.ins.space == Space::generic || s.ins.space == Space::global ||
         s.ins.space == Space::shared || s.ins.space == Space::cluster);
  const int which =
      s.one_of({"add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec"});
  s.need(which >= 0);
  s.ins.combine = static_cast<std::uint8_t>(which);
  const Type t = s.ins.type = which == 0
                                  ? s.type({Type::u32, Type::s32, Type::u64, Type::f32, Type::f64})
                              : which <= 2 ? s.type({Type::u32, Type::s32, Type::u64, Type::s64})
                              : which >= 8 ? s.type({Type::u32})
                                           : s.type({Type::b32, Type::b64});
  if (s.mnemonic() == "atom") {
    s.ins.d = s.operand(t);
    s.comma();
  }
  s.address();
  s.ins.b = s.next(t);
  if (which == 4) s.ins.c = s.next(t);
}

// prefetch{.space}.level [address]: a hint, of any address; there are no caches here.
void decode_prefetch(Statement& s) {
  s.ins.space = space(s);
  s.need(s.ins.space == Space::generic || s.ins.space == Space::global ||
         s.ins.space == Space::local);
  s.need(s.one_of({"L1", "L2"}) >= 0);
  s.address();
}

// ins.combine is the kind: of memory accesses in the block or beyond, of the asynchronous proxy, of
// mbarrier.init.
void decode_fence(Statement& s) {
  if (s.mnemonic() == "membar") {
    const int scope = s.one_of({"cta", "gl", "sys"});
    s.need(scope >= 0);
    if (scope > 0) s.ins.combine = 3;
    return;
  }
  if (s.has("proxy")) {
    s.need(s.has("async"));
    s.ins.combine = 1;
    s.skip({"global", "shared::cta", "shared::cluster"});
  } else if (s.has("mbarrier_init")) {
    s.need(s.has("release") && s.has("cluster"));
    s.ins.combine = 2;
  } else {
    s.skip({"sc", "acq_rel", "acquire", "release"});
    const int scope = s.one_of({"cta", "cluster", "gpu", "sys"});
    s.need(scope >= 0);
    if (scope > 0) s.ins.combine = 3;
  }
}

}  // namespace vgpu::ptx
