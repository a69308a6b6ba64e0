// A decoded instruction, and the decoded kernel: what ptx/ makes of PTX text and the interpreter
// runs. Registers have been allocated: an operand is the place of its 32 lanes in a warp's file.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vgpu {

enum class Op : std::uint16_t {
  mov,
  ld,
  st,
  add,
  sub,
  mul_lo,
  mul_hi,
  mul_wide,
  mad_lo,
  mad_hi,
  mad_wide,
  fma,
  div,
  rem,
  min,
  max,
  neg,
  abs,
  not_,
  and_,
  or_,
  xor_,
  shl,
  shr,
  bfi,
  bfe,
  setp,
  selp,
  cvt,
  bra,
  ret,
  bar_sync,
  bar_warp,
  shfl,
  rsqrt,
  rcp,
  sqrt,
  ex2,
  lg2,
  sin,
  cos,
  copysign,
  popc,
  clz,
  prmt,
  mma,
  ldmatrix,
  cp_async,
  cp_commit,
  cp_wait,
  nothing,
  pack,
  unpack,
  atom,
  vote,
  activemask,
  testp,
  trap,
  mbar_init,
  mbar_arrive,
  mbar_expect,
  mbar_wait,
  wgmma,
  tma,
  bulk,
  bar_arrive,
  // combine: 0 of memory in the block, 1 fence.proxy.async, 2 fence.mbarrier_init, 3 of memory in
  // the cluster or beyond
  fence,
  wgmma_fence,
  wgmma_commit,
  wgmma_wait,  // imm: groups that may stay under way
  setmaxnreg,  // imm: registers; combine: 0 dec, 1 inc
  brev,
  shf,   // combine: 0 left, 1 right, + 2 where amounts are clamped and not taken modulo 32
  lop3,  // imm: the table
  tanh,
  mapa,            // combine: 0 generic addresses, 1 of the window .shared::cluster
  getctarank,      // the same
  cluster_arrive,  // combine: 1 relaxed, + kAligned
  cluster_wait,    // combine: kAligned or 0
  st_async,
  grid_wait  // griddepcontrol.wait
};
// Of barrier.cluster: all lanes of the warp execute it together.
constexpr int kAligned = 2;

enum class Type : std::uint8_t {
  none,
  pred,
  b8,
  u8,
  s8,
  b16,
  u16,
  s16,
  f16,
  b32,
  u32,
  s32,
  f32,
  b64,
  u64,
  s64,
  f64,
  bf16,
  tf32
};
enum class Space : std::uint8_t { generic, global, shared, cluster, local, param, constant };
enum class Cmp : std::uint8_t { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };
enum class Round : std::uint8_t { none, rn, rz, rm, rp, rni, rzi, rmi, rpi, rna };

constexpr int size_of(Type t) {
  switch (t) {
    case Type::pred:
      return 4;  // a lane's mask
    case Type::b8:
    case Type::u8:
    case Type::s8:
      return 1;
    case Type::b16:
    case Type::u16:
    case Type::s16:
    case Type::f16:
    case Type::bf16:
      return 2;
    case Type::b64:
    case Type::u64:
    case Type::s64:
    case Type::f64:
      return 8;
    default:
      return 4;
  }
}

// Operands are byte offsets of 32 lanes in the warp's register file (numbers of virtual registers
// while decoding); -1 is none, or the sink `_`.
struct Ins {
  Op op = Op::nothing;
  Type type = Type::none, type2 = Type::none;
  Space space = Space::generic;
  Cmp cmp = Cmp::eq;
  Round round = Round::none;
  std::uint8_t vector = 1;
  // Which of its kind. setp: 1 and, 2 or, 3 xor; shfl: 0 up, 1 down, 2 bfly, 3 idx; min, max: 1
  // .NaN; cvt: 1 .relu; others: the number in the list of their decoder.
  std::uint8_t combine = 0;
  bool ftz = false, sat = false, negated = false, leader = false;
  std::uint8_t width = 0;   // bytes of the register loaded to, stored from or converted to
  std::uint8_t width2 = 0;  // of the register converted from
  int pred = -1;
  int d = -1, a = -1, b = -1, c = -1, e = -1;
  int list = -1, list_count = 0, list_defs = 0;  // in Code::lists
  std::int64_t imm = 0;                          // offset of an address, target of a branch
  int loc = 0;
  int line = 0;  // in the PTX text
};

// A place in the source, from a .loc directive. Where the code was inlined, the place of the call
// is the location `inlined_at` of the same list, whose own may be further out.
struct Location {
  int file = 0, line = 0, column = 0;  // file: a number of PtxModule::files
  std::string_view function = {};      // of inlined code: the label of its name in .debug_str
  int inlined_at = -1;
  std::string_view called = {};  // the function, where that place is a call which was not inlined
};

// A register that holds the same value in every lane and is never written.
struct Constant {
  int slot;
  std::uint64_t bits;
  int size;
};

struct Code {
  std::vector<Ins> ins;
  std::vector<int> lists;
  std::vector<Location> locations;
  std::vector<Constant> constants;
  std::vector<std::pair<int, std::string>> specials;  // slot, %tid.x
  int register_bytes = 0;                             // of a warp
  int virtual_registers = 0;
  int shared_bytes = 0, local_bytes = 0;
};

}  // namespace vgpu
