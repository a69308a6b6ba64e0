// Integer and floating-point arithmetic: PTX ISA, "Integer Arithmetic Instructions" and
// "Floating Point Instructions".
#include "vgpu/ptx/families.h"

namespace vgpu::ptx {
namespace {

bool is_float(Type t) { return t == Type::f32 || t == Type::f64; }
constexpr std::initializer_list<Type> kNumbers = {Type::u16, Type::u32, Type::u64, Type::s16,
                                                  Type::s32, Type::s64, Type::f32, Type::f64};
constexpr std::initializer_list<Type> kIntegers = {Type::u16, Type::u32, Type::u64,
                                                   Type::s16, Type::s32, Type::s64};
constexpr std::initializer_list<Type> kSigned = {Type::s16, Type::s32, Type::s64, Type::f32,
                                                 Type::f64};
constexpr std::initializer_list<Type> kFloats = {Type::f32, Type::f64};
constexpr std::initializer_list<Round> kNearest = {Round::rn};
constexpr std::initializer_list<Round> kAnyRound = {Round::rn, Round::rz, Round::rm, Round::rp};

// d, a, b, c, all of the instruction's type.
void operands(Statement& s, int sources) {
  const Type t = s.ins.type;
  s.ins.d = s.operand(t);
  if (sources > 0) s.ins.a = s.next(t);
  if (sources > 1) s.ins.b = s.next(t);
  if (sources > 2) s.ins.c = s.next(t);
}

bool directed(Round r) { return r != Round::none && r != Round::rn; }

}  // namespace

// .sat is for float32, to [0, 1], and for s32, to the limits of the type.
void decode_add(Statement& s) {
  s.ins.round = s.rounding(kAnyRound);
  s.ins.sat = s.has("sat");
  s.ins.type = s.type(kNumbers);
  s.need(s.ins.round == Round::none || is_float(s.ins.type));
  s.need(!s.ins.sat || s.ins.type == Type::f32 || s.ins.type == Type::s32);
  operands(s, 2);
}

// mul and mad: .lo, .hi and .wide of integers; of floats, mad is fma.
void decode_mul(Statement& s) {
  const bool mad = s.ins.op == Op::mad_lo;
  s.ins.round = s.rounding(kAnyRound);
  const int part = s.one_of({"lo", "hi", "wide"});
  s.ins.sat = s.has("sat");
  const Type t = s.ins.type = s.type(kNumbers);
  s.need((part < 0) == is_float(t) && (s.ins.round == Round::none || is_float(t)));
  s.need(!mad || !directed(s.ins.round) || t == Type::f32);
  s.need(!s.ins.sat || t == Type::f32 || (mad && part == 1 && t == Type::s32));
  if (part == 1) s.ins.op = mad ? Op::mad_hi : Op::mul_hi;
  if (part != 2) return operands(s, mad ? 3 : 2);
  s.need(size_of(t) <= 4);
  const bool sign = t == Type::s16 || t == Type::s32;
  const Type wide =
      size_of(t) == 4 ? (sign ? Type::s64 : Type::u64) : (sign ? Type::s32 : Type::u32);
  s.ins.op = mad ? Op::mad_wide : Op::mul_wide;
  s.ins.d = s.operand(wide);
  s.ins.a = s.next(t);
  s.ins.b = s.next(t);
  if (mad) s.ins.c = s.next(wide);
}

void decode_fma(Statement& s) {
  s.ins.round = s.rounding(kAnyRound);
  s.ins.sat = s.has("sat");
  s.ins.type = s.type(kFloats);
  s.need((!directed(s.ins.round) && !s.ins.sat) || s.ins.type == Type::f32);
  operands(s, 3);
}

// .approx and .full are computed as .rn is, which is within their bounds.
void decode_div(Statement& s) {
  const bool approximate = s.one_of({"approx", "full"}) >= 0;
  s.ins.round = s.rounding(kNearest);
  s.ins.type = s.type(kNumbers);
  s.need(!approximate || s.ins.type == Type::f32);
  operands(s, 2);
}

void decode_rem(Statement& s) {
  s.ins.type = s.type(kIntegers);
  operands(s, 2);
}

void decode_min_max(Statement& s) {
  s.ins.combine = s.has("NaN");
  s.ins.type = s.type(kNumbers);
  s.need(!s.ins.combine || s.ins.type == Type::f32);
  operands(s, 2);
}

void decode_neg_abs(Statement& s) {
  s.ins.type = s.type(kSigned);
  operands(s, 1);
}

// rcp, sqrt, rsqrt: .approx is computed as .rn is.
void decode_root(Statement& s) {
  s.skip({"approx"});
  s.ins.round = s.rounding(kNearest);
  s.ins.type = s.type(kFloats);
  operands(s, 1);
}

// ex2, lg2, sin, cos, tanh
void decode_approximate(Statement& s) {
  s.need(s.has("approx"));
  s.ins.type = s.type({Type::f32});
  operands(s, 1);
}

void decode_copysign(Statement& s) {
  s.ins.type = s.type(kFloats);
  operands(s, 2);
}

void decode_testp(Statement& s) {
  const int which = s.one_of({"finite", "notanumber", "infinite", "number", "normal", "subnormal"});
  s.need(which >= 0);
  s.ins.combine = static_cast<std::uint8_t>(which);
  s.ins.type = s.type(kFloats);
  s.ins.d = s.operand(Type::pred);
  s.ins.a = s.next(s.ins.type);
}

}  // namespace vgpu::ptx
