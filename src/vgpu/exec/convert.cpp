// cvt: PTX ISA, "Data Movement and Conversion Instructions: cvt".
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "rounding.h"
#include "types.h"

namespace vgpu {
namespace {

bool is_float(Type t) {
  return t == Type::f16 || t == Type::bf16 || t == Type::tf32 || t == Type::f32 || t == Type::f64;
}
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
    case Type::bf16:
      v.real = from_bf16(reg<u16>(w, i.a)[lane]);
      break;
    case Type::f32:
      v.real = i.ftz ? flush(reg<float>(w, i.a)[lane]) : reg<float>(w, i.a)[lane];
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
// From an integer to the float that the rounding asks for. The widest type of the processor holds
// all 64 bits; by way of double they would be rounded twice.
template <typename T>
T from_integer(s64 value, const Ins& i) {
  const bool positive = i.type2 == Type::u64;
  const long double exact = positive ? static_cast<long double>(static_cast<u64>(value))
                                     : static_cast<long double>(value);
  const T nearest = positive ? static_cast<T>(static_cast<u64>(value)) : static_cast<T>(value);
  if (!is_directed(i.round)) return nearest;
  const long double error = exact - static_cast<long double>(nearest);
  return round_directed(nearest, static_cast<T>(error), i.round);
}
// To the type's limits, for .sat between integers.
s64 limited(s64 value, const Ins& i) {
  const int bits = 8 * size_of(i.type);
  if (i.type2 == Type::u64 && value < 0) value = INT64_MAX;  // beyond what follows, but for u64
  if (is_signed(i.type))
    return std::clamp<s64>(value, INT64_MIN >> (64 - bits), INT64_MAX >> (64 - bits));
  if (bits == 64) return std::max<s64>(value, 0);
  return std::clamp<s64>(value, 0, (s64{1} << bits) - 1);
}
u16 to_f16(double x, Round how) {
  const auto nearest = static_cast<_Float16>(x);
  u16 bits = std::bit_cast<u16>(nearest);
  // toward zero: the bits of the number below in magnitude are one less
  if (how == Round::rz && std::isfinite(x) &&
      std::fabs(static_cast<double>(nearest)) > std::fabs(x))
    --bits;
  return bits;
}
Value between_kinds(Value v, const Ins& i) {
  if (is_float(i.type2)) {
    v.real = round_to_integer(v.real, i.round);
    if (i.sat && is_float(i.type))
      v.real = v.real != v.real ? 0.0 : std::min(1.0, std::max(0.0, v.real));
    if (!is_float(i.type)) v.integer = saturated(v.real, 8 * size_of(i.type), is_signed(i.type));
  } else if (is_float(i.type)) {
    v.real = i.type == Type::f32 ? from_integer<float>(v.integer, i)
                                 : from_integer<double>(v.integer, i);
  } else if (i.sat) {
    v.integer = limited(v.integer, i);
  }
  return v;
}
// The bits of the result.
u64 convert(Value v, const Ins& i) {
  v = between_kinds(v, i);
  switch (i.type) {
    case Type::f16:
      return to_f16(v.real, i.round);
    case Type::bf16:
      return to_bf16(static_cast<float>(v.real), i.round);
    case Type::tf32:
      return to_tf32(static_cast<float>(v.real));
    case Type::f32: {
      const float f =
          i.type2 == Type::f64 ? round_to_float(v.real, i.round) : static_cast<float>(v.real);
      return std::bit_cast<u32>(i.ftz ? flush(f) : f);
    }
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

// cvt.rn.bf16x2.f32 d, high, low; .relu makes zeros of what is negative.
template <bool plain>
void pack_bf16(Warp& w, const Ins& i) {
  const float *const high = reg<float>(w, i.a), *const low = reg<float>(w, i.b);
  const auto half = [&](float x) {
    if (plain) return to_bf16(x);
    return to_bf16(i.combine && x < 0 ? 0.0f : x, i.round);
  };
  write_lanes(w, reg<u32>(w, i.d), [&](int l) { return half(high[l]) << 16 | half(low[l]); });
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
  if (i.vector == 2) return i.combine || i.round == Round::rz ? pack_bf16<false> : pack_bf16<true>;
  const bool as_wide = i.width == size_of(i.type) && i.width2 == size_of(i.type2);
  const auto integer = [](Type t) { return !is_float(t) && size_of(t) > 1; };
  if (i.sat || i.ftz || !as_wide) return convert_any;
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
