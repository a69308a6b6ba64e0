// Logic, shifts, comparisons and conversions: PTX ISA, "Logic and Shift Instructions", "Comparison
// and Selection Instructions", "Data Movement and Conversion Instructions: cvt".
#include <unordered_map>

#include "vgpu/ptx/families.h"

namespace vgpu::ptx {

void decode_logic(Statement& s) {
  const Type t = s.ins.type = s.type({Type::pred, Type::b16, Type::b32, Type::b64});
  s.ins.d = s.operand(t);
  s.ins.a = s.next(t);
  if (s.ins.op != Op::not_) s.ins.b = s.next(t);
}

void decode_shift(Statement& s) {
  const Type t = s.ins.type = s.ins.op == Op::shl
                                  ? s.type({Type::b16, Type::b32, Type::b64})
                                  : s.type({Type::b16, Type::b32, Type::b64, Type::u16, Type::u32,
                                            Type::u64, Type::s16, Type::s32, Type::s64});
  s.ins.d = s.operand(t);
  s.ins.a = s.next(t);
  s.ins.b = s.next(Type::u32);
}

// bfi d, a, b, position, length; bfe d, a, position, length
void decode_bit_field(Statement& s) {
  const bool insert = s.ins.op == Op::bfi;
  const Type t = s.ins.type = insert ? s.type({Type::b32, Type::b64})
                                     : s.type({Type::u32, Type::u64, Type::s32, Type::s64});
  s.ins.d = s.operand(t);
  s.ins.a = s.next(t);
  s.ins.b = insert ? s.next(t) : s.next(Type::u32);
  s.ins.c = s.next(Type::u32);
  if (insert) s.ins.e = s.next(Type::u32);
}

void decode_count(Statement& s) {
  s.ins.type = s.type({Type::b32, Type::b64});
  s.ins.d = s.operand(s.ins.op == Op::brev ? s.ins.type : Type::u32);
  s.ins.a = s.next(s.ins.type);
}

// shf.l.wrap.b32 d, a, b, amount: of the 64 bits b:a
void decode_funnel(Statement& s) {
  const int right = s.one_of({"l", "r"}), clamps = s.one_of({"wrap", "clamp"});
  s.need(right >= 0 && clamps >= 0);
  s.ins.combine = static_cast<std::uint8_t>(right + 2 * clamps);
  s.ins.type = s.type({Type::b32});
  s.ins.d = s.operand(Type::b32);
  s.ins.a = s.next(Type::b32);
  s.ins.b = s.next(Type::b32);
  s.ins.c = s.next(Type::u32);
}

void decode_lop3(Statement& s) {
  s.ins.type = s.type({Type::b32});
  s.ins.d = s.operand(Type::b32);
  s.ins.a = s.next(Type::b32);
  s.ins.b = s.next(Type::b32);
  s.ins.c = s.next(Type::b32);
  s.comma();
  s.ins.imm = static_cast<std::int64_t>(s.immediate());
  s.need(s.ins.imm >= 0 && s.ins.imm < 256);
}

void decode_prmt(Statement& s) {
  s.ins.type = s.type({Type::b32});
  s.ins.combine =
      static_cast<std::uint8_t>(s.one_of({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"}) + 1);
  s.ins.d = s.operand(Type::b32);
  s.ins.a = s.next(Type::b32);
  s.ins.b = s.next(Type::b32);
  s.ins.c = s.next(Type::b32);
}

void decode_setp(Statement& s) {
  constexpr Cmp cmps[] = {Cmp::eq,  Cmp::ne,  Cmp::lt,  Cmp::le,  Cmp::gt,  Cmp::ge,
                          Cmp::equ, Cmp::neu, Cmp::ltu, Cmp::leu, Cmp::gtu, Cmp::geu,
                          Cmp::num, Cmp::nan, Cmp::lt,  Cmp::le,  Cmp::gt,  Cmp::ge};
  const int cmp = s.one_of({"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu",
                            "geu", "num", "nan", "lo", "ls", "hi", "hs"});
  s.need(cmp >= 0);
  s.ins.cmp = cmps[cmp];
  s.ins.combine = static_cast<std::uint8_t>(s.one_of({"and", "or", "xor"}) + 1);
  const Type t = s.ins.type =
      s.type({Type::b16, Type::b32, Type::b64, Type::u16, Type::u32, Type::u64, Type::s16,
              Type::s32, Type::s64, Type::f32, Type::f64});
  const bool is_float = t == Type::f32 || t == Type::f64,
             is_unsigned = t == Type::u16 || t == Type::u32 || t == Type::u64,
             is_bits = t == Type::b16 || t == Type::b32 || t == Type::b64;
  s.need(cmp < 6 || (is_float && cmp < 14) || (is_unsigned && cmp >= 14));
  s.need(!is_bits || cmp < 2);
  s.ins.d = s.operand(Type::pred);
  if (s.take('|')) s.ins.e = s.operand(Type::pred);
  s.ins.a = s.next(t);
  s.ins.b = s.next(t);
  if (s.ins.combine) s.ins.c = s.next(Type::pred);
}

void decode_selp(Statement& s) {
  const Type t = s.ins.type =
      s.type({Type::b16, Type::b32, Type::b64, Type::u16, Type::u32, Type::u64, Type::s16,
              Type::s32, Type::s64, Type::f32, Type::f64});
  s.ins.d = s.operand(t);
  s.ins.a = s.next(t);
  s.ins.b = s.next(t);
  s.ins.c = s.next(Type::pred);
}

namespace {

bool is_float(Type t) {
  return t == Type::f16 || t == Type::bf16 || t == Type::f32 || t == Type::f64;
}

// Two f32 to a pair of bf16, the first operand in the upper half.
void decode_cvt_pair(Statement& s) {
  s.ins.round = s.rounding({Round::rn, Round::rz});
  s.ins.combine = s.has("relu");
  s.ins.type = Type::b32;
  s.ins.type2 = s.type({Type::f32});
  s.ins.vector = 2;
  s.ins.d = s.operand(Type::b32);
  s.ins.a = s.next(Type::f32);
  s.ins.b = s.next(Type::f32);
}

// cvt.rna.tf32.f32: 10 bits of the fraction stay, in a register of 32 bits.
void decode_cvt_tf32(Statement& s) {
  s.ins.round = s.rounding({Round::rna});
  s.need(s.ins.round == Round::rna);
  s.ins.type = Type::tf32;
  s.ins.type2 = s.type({Type::f32});
  s.ins.d = s.operand(Type::b32);
  s.ins.a = s.next(Type::f32);
  s.ins.width = s.ins.width2 = 4;
}

// Which roundings a conversion takes: to an integral value, to the precision of a float, or none.
bool rounding_fits(Type to, Type from, Round round) {
  const bool integral = round >= Round::rni, rounds = round != Round::none && !integral;
  if (!is_float(from)) return is_float(to) ? rounds : round == Round::none;
  if (!is_float(to)) return integral;
  if (size_of(to) < size_of(from)) return rounds;
  return to == from ? !rounds : round == Round::none;
}

}  // namespace

void decode_cvt(Statement& s) {
  if (s.has("bf16x2")) return decode_cvt_pair(s);
  if (s.has("tf32")) return decode_cvt_tf32(s);
  const Round round = s.ins.round = s.rounding(
      {Round::rn, Round::rz, Round::rm, Round::rp, Round::rni, Round::rzi, Round::rmi, Round::rpi});
  s.ins.sat = s.has("sat");
  const auto known = {Type::u8,  Type::s8,  Type::u16, Type::s16, Type::u32,  Type::s32,
                      Type::u64, Type::s64, Type::f16, Type::f32, Type::bf16, Type::f64};
  const Type to = s.ins.type = s.type(known), from = s.ins.type2 = s.type(known);
  s.need(rounding_fits(to, from, round));
  s.need(to != Type::bf16 || (from == Type::f32 && round <= Round::rz && !s.ins.sat));
  s.need(from != Type::bf16 || to == Type::f32);
  s.need(to != Type::f16 || round <= Round::rz);
  s.ins.d = s.wide_operand(to);
  s.comma();
  s.ins.a = s.wide_operand(from);
  s.need(s.ins.d >= 0 && s.ins.a >= 0);
  s.ins.width = static_cast<std::uint8_t>(s.lanes_bytes(s.ins.d));
  s.ins.width2 = static_cast<std::uint8_t>(s.lanes_bytes(s.ins.a));
}

}  // namespace vgpu::ptx
