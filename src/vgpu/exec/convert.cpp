// cvt: PTX ISA, "Data Movement and Conversion Instructions: cvt".
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "rounding.h"
#include "types.h"

namespace vgpu {
namespace {

bool is_float(Type t) { return t == Type::f16 || t == Type::f32 || t == Type::f64; }
bool is_signed(Type t) {
  return t == Type::s8 || t == Type::s16 || t == Type::s32 || t == Type::s64;
}

// The low bits of a number, extended to 64.
s64 extended(s64 value, int bits, bool with_sign) {
  const u64 high = static_cast<u64>(value) << (64 - bits);
  return with_sign ? static_cast<s64>(high) >> (64 - bits) : static_cast<s64>(high >> (64 - bits));
}
// The nearest integer of the type; NaN gives 0.
s64 saturated(double value, int bits, bool with_sign) {
  const double most = std::ldexp(1.0, bits - (with_sign ? 1 : 0)), least = with_sign ? -most : 0.0;
  if (value != value) return 0;
  if (value >= most) {
    if (with_sign) return static_cast<s64>((1ull << (bits - 1)) - 1);
    return static_cast<s64>(bits == 64 ? ~0ull : (1ull << bits) - 1);
  }
  if (value <= least) return with_sign ? -static_cast<s64>(1ull << (bits - 1)) : 0;
  return with_sign ? static_cast<s64>(value) : static_cast<s64>(static_cast<u64>(value));
}

// Of one lane while it is converted: integers as 64 bits, floats as double.
struct Value {
  s64 integer = 0;
  double real = 0.0;
};
Value read_source(const Warp& w, const Ins& i, int lane) {
  Value v;
  switch (i.type2) {
    case Type::f16:
      v.real = static_cast<double>(std::bit_cast<_Float16>(reg<u16>(w, i.a)[lane]));
      break;
    case Type::f32:
      v.real = reg<float>(w, i.a)[lane];
      break;
    case Type::f64:
      v.real = reg<double>(w, i.a)[lane];
      break;
    default: {
      const int bytes = std::min<int>(size_of(i.type2), i.width2);
      std::memcpy(&v.integer, w.registers + i.a + lane * i.width2, bytes);
      v.integer = extended(v.integer, 8 * bytes, is_signed(i.type2));
    }
  }
  return v;
}
double round_to_integer(double x, Round how) {
  switch (how) {
    case Round::rni:
      return std::nearbyint(x);
    case Round::rzi:
      return std::trunc(x);
    case Round::rmi:
      return std::floor(x);
    case Round::rpi:
      return std::ceil(x);
    default:
      return x;
  }
}
// From an integer to a float: by way of double it would be rounded twice where it has 64 bits.
double from_integer(s64 value, const Ins& i) {
  const bool to_float = i.type == Type::f32;
  if (i.type2 == Type::u64) {
    const u64 positive = static_cast<u64>(value);
    return to_float ? static_cast<float>(positive) : static_cast<double>(positive);
  }
  return to_float && size_of(i.type2) == 8 ? static_cast<float>(value) : static_cast<double>(value);
}
// The bits of the result.
u64 convert(Value v, const Ins& i) {
  if (is_float(i.type2)) {
    v.real = round_to_integer(v.real, i.round);
    if (i.sat && is_float(i.type))
      v.real = v.real != v.real ? 0.0 : std::min(1.0, std::max(0.0, v.real));
    if (!is_float(i.type)) v.integer = saturated(v.real, 8 * size_of(i.type), is_signed(i.type));
  } else if (is_float(i.type)) {
    v.real = from_integer(v.integer, i);
  }
  switch (i.type) {
    case Type::f16:
      return std::bit_cast<u16>(static_cast<_Float16>(v.real));
    case Type::f32:
      return std::bit_cast<u32>(i.type2 == Type::f64 ? round_to_float(v.real, i.round)
                                                     : static_cast<float>(v.real));
    case Type::f64:
      return std::bit_cast<u64>(v.real);
    default:
      return static_cast<u64>(extended(v.integer, 8 * size_of(i.type), is_signed(i.type)));
  }
}
void convert_any(Warp& w, const Ins& i) {
  u64 result[kLanes];
  each_active_lane(w, [&](int l) { result[l] = convert(read_source(w, i, l), i); });
  const auto write = [&](auto t) {
    using T = decltype(t);
    each_active_lane(w, [&](int l) { reg<T>(w, i.d)[l] = static_cast<T>(result[l]); });
  };
  if (i.width == 8)
    write(u64());
  else if (i.width == 4)
    write(u32());
  else
    write(u16());
}

void pack_bf16(Warp& w, const Ins& i) {  // cvt.rn.bf16x2.f32 d, high, low
  const float *const high = reg<float>(w, i.a), *const low = reg<float>(w, i.b);
  write_lanes(w, reg<u32>(w, i.d), [&](int l) { return to_bf16(high[l]) << 16 | to_bf16(low[l]); });
}

// What C++ does too.
template <typename From, typename To>
void convert_as_cpp(Warp& w, const Ins& i) {
  const From* const a = reg<From>(w, i.a);
  write_lanes(w, reg<To>(w, i.d), [&](int l) { return static_cast<To>(a[l]); });
}
template <typename From>
Handler from_integer_of(int width) {
  switch (width) {
    case 2:
      return convert_as_cpp<From, u16>;
    case 4:
      return convert_as_cpp<From, u32>;
    default:
      return convert_as_cpp<From, u64>;
  }
}
template <auto round>
void round_floats(Warp& w, const Ins& i) {
  const float* const a = reg<float>(w, i.a);
  write_lanes(w, reg<float>(w, i.d), [&](int l) { return round(a[l]); });
}
constexpr auto nearest = [](float x) { return std::nearbyint(x); };
constexpr auto toward_zero = [](float x) { return std::trunc(x); };
constexpr auto down = [](float x) { return std::floor(x); };
constexpr auto up = [](float x) { return std::ceil(x); };

}  // namespace

Handler convert_handler(const Ins& i) {
  if (i.op != Op::cvt) return nullptr;
  if (i.vector == 2) return pack_bf16;
  const bool as_wide = i.width == size_of(i.type) && i.width2 == size_of(i.type2);
  const auto integer = [](Type t) { return !is_float(t) && t != Type::bf16 && size_of(t) > 1; };
  if (i.sat || !as_wide) return convert_any;
  if (integer(i.type) && integer(i.type2))
    return for_integers(i.type2,
                        [&](auto t) -> Handler { return from_integer_of<decltype(t)>(i.width); });
  if (i.type == Type::f32 && i.round == Round::rn) {
    if (i.type2 == Type::s32) return convert_as_cpp<s32, float>;
    if (i.type2 == Type::u32) return convert_as_cpp<u32, float>;
  }
  if (i.type == Type::f32 && i.type2 == Type::f32) {
    if (i.round == Round::rni) return round_floats<nearest>;
    if (i.round == Round::rzi) return round_floats<toward_zero>;
    if (i.round == Round::rmi) return round_floats<down>;
    if (i.round == Round::rpi) return round_floats<up>;
  }
  return convert_any;
}

}  // namespace vgpu
