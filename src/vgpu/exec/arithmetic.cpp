// Arithmetic on integers and floating-point numbers: PTX ISA, "Integer Arithmetic Instructions" and
// "Floating Point Instructions".
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "fault.h"
#include "rounding.h"
#include "types.h"

namespace vgpu {
namespace {

// Integers wrap, which C++ says only of unsigned ones; those shorter than int would become int.
template <typename T>
constexpr auto wrapping(T x) {
  if constexpr (std::is_floating_point_v<T>) {
    return x;
  } else if constexpr (sizeof(T) < 4) {
    return static_cast<u32>(x);
  } else {
    return static_cast<std::make_unsigned_t<T>>(x);
  }
}

constexpr auto add = [](auto x, auto y) { return wrapping(x) + wrapping(y); };
constexpr auto subtract = [](auto x, auto y) { return wrapping(x) - wrapping(y); };
constexpr auto multiply = [](auto x, auto y) { return wrapping(x) * wrapping(y); };
constexpr auto negate = [](auto x) {
  if constexpr (std::is_floating_point_v<decltype(x)>)
    return -x;
  else
    return 0 - wrapping(x);
};
constexpr auto multiply_add = [](auto x, auto y, auto z) {
  if constexpr (std::is_floating_point_v<decltype(x)>)
    return std::fma(x, y, z);
  else
    return wrapping(x) * wrapping(y) + wrapping(z);
};
template <typename T>
using Wide = std::conditional_t<
    sizeof(T) == 8, std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>,
    std::conditional_t<
        sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, s64, u64>,
        std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, s32, u32>,
                           void>>>;
constexpr auto multiply_high = [](auto x, auto y) {
  using T = decltype(x);
  return static_cast<T>((static_cast<Wide<T>>(x) * static_cast<Wide<T>>(y)) >> (8 * sizeof(T)));
};
constexpr auto multiply_high_add = [](auto x, auto y, auto z) {
  return wrapping(multiply_high(x, y)) + wrapping(z);
};
// The most negative number by -1 wraps. A division by zero is reported by divide_checked(), but
// lanes that are not active may divide by anything.
constexpr auto divide = [](auto x, auto y) {
  using T = decltype(x);
  if constexpr (std::is_floating_point_v<T>) {
    return x / y;
  } else {
    if (y == 0) return static_cast<T>(-1);
    if (std::is_signed_v<T> && y == static_cast<T>(-1)) return static_cast<T>(0 - wrapping(x));
    return static_cast<T>(x / y);
  }
};
constexpr auto remainder = [](auto x, auto y) {
  using T = decltype(x);
  if (y == 0) return x;
  if (std::is_signed_v<T> && y == static_cast<T>(-1)) return T(0);
  return static_cast<T>(x % y);
};
// Of a number and a NaN, the number; of two NaNs, the canonical one. -0 is below +0.
template <typename T>
constexpr T canonical_nan() {
  if constexpr (sizeof(T) == 4)
    return std::bit_cast<T>(0x7fffffffu);
  else
    return std::bit_cast<T>(0x7fffffffffffffffull);
}
constexpr auto minimum = [](auto x, auto y) {
  using T = decltype(x);
  if constexpr (std::is_floating_point_v<T>) {
    if (x == y) return std::signbit(x) ? x : y;
    return x != x ? (y != y ? canonical_nan<T>() : y) : y != y || x < y ? x : y;
  } else {
    return x < y ? x : y;
  }
};
constexpr auto maximum = [](auto x, auto y) {
  using T = decltype(x);
  if constexpr (std::is_floating_point_v<T>) {
    if (x == y) return std::signbit(x) ? y : x;
    return x != x ? (y != y ? canonical_nan<T>() : y) : y != y || x > y ? x : y;
  } else {
    return x > y ? x : y;
  }
};
// .NaN: of a number and a NaN, the NaN.
constexpr auto minimum_or_nan = [](auto x, auto y) {
  return x != x || y != y ? canonical_nan<decltype(x)>() : minimum(x, y);
};
constexpr auto maximum_or_nan = [](auto x, auto y) {
  return x != x || y != y ? canonical_nan<decltype(x)>() : maximum(x, y);
};
constexpr auto absolute = [](auto x) {
  if constexpr (std::is_floating_point_v<decltype(x)>)
    return std::fabs(x);
  else
    return x < 0 ? 0 - wrapping(x) : wrapping(x);
};
constexpr auto copy_sign = [](auto x, auto y) { return std::copysign(y, x); };  // x's on y
constexpr auto reciprocal = [](auto x) { return 1 / x; };
constexpr auto square_root = [](auto x) { return std::sqrt(x); };
constexpr auto reciprocal_square_root = [](auto x) { return 1 / std::sqrt(x); };
constexpr auto exponential = [](auto x) { return std::exp2(x); };
constexpr auto logarithm = [](auto x) { return std::log2(x); };
constexpr auto sine = [](auto x) { return std::sin(x); };
constexpr auto cosine = [](auto x) { return std::cos(x); };
constexpr auto hyperbolic_tangent = [](auto x) { return std::tanh(x); };

template <typename T>
void multiply_wide(Warp& w, const Ins& i) {
  Wide<T>* const d = reg<Wide<T>>(w, i.d);
  const T *const a = reg<T>(w, i.a), *const b = reg<T>(w, i.b);
  write_lanes(w, d, [&](int l) { return static_cast<Wide<T>>(a[l]) * static_cast<Wide<T>>(b[l]); });
}
template <typename T>
void multiply_add_wide(Warp& w, const Ins& i) {
  using Unsigned = std::make_unsigned_t<Wide<T>>;
  Wide<T>* const d = reg<Wide<T>>(w, i.d);
  const T *const a = reg<T>(w, i.a), *const b = reg<T>(w, i.b);
  const Wide<T>* const c = reg<Wide<T>>(w, i.c);
  write_lanes(w, d, [&](int l) {
    const Wide<T> product = static_cast<Wide<T>>(a[l]) * static_cast<Wide<T>>(b[l]);
    return static_cast<Wide<T>>(static_cast<Unsigned>(product) + static_cast<Unsigned>(c[l]));
  });
}

// .rz, .rm and .rp
template <Round how>
constexpr auto add_directed = [](auto x, auto y) {
  using T = decltype(x);
  if constexpr (sizeof(T) == 4) {
    return sign_of_zero(round_to_float(sticky_sum(x, y), how), x, y, how);
  } else {
    const T sum = round_directed(x + y, sum_error(x, y), how);
    return sign_of_zero(sum, x, y, how);
  }
};
template <Round how>
constexpr auto subtract_directed = [](auto x, auto y) { return add_directed<how>(x, -y); };
template <Round how>
constexpr auto multiply_directed = [](auto x, auto y) {
  using T = decltype(x);
  if constexpr (sizeof(T) == 4)
    return round_to_float(static_cast<double>(x) * y, how);  // which is exact
  else
    return round_directed(x * y, std::isfinite(x * y) ? std::fma(x, y, -(x * y)) : T(0), how);
};
template <Round how>
constexpr auto multiply_add_directed = [](float x, float y, float z) {
  const double product = static_cast<double>(x) * y;
  const float sum = round_to_float(sticky_sum(product, z), how);
  return sign_of_zero(sum, std::signbit(product) ? -0.0f : 0.0f, z, how);
};

// s32 with .sat
constexpr auto clamped = [](s64 x) {
  return static_cast<s32>(std::clamp<s64>(x, INT32_MIN, INT32_MAX));
};
constexpr auto add_clamped = [](s32 x, s32 y) { return clamped(s64{x} + y); };
constexpr auto subtract_clamped = [](s32 x, s32 y) { return clamped(s64{x} - y); };
constexpr auto multiply_high_add_clamped = [](s32 x, s32 y, s32 z) {
  return clamped((s64{x} * y >> 32) + z);
};

// .ftz is of operands and results. .sat: to [0, 1], NaN to 0.
float saturate(float x) { return x > 0 ? std::min(x, 1.0f) : 0.0f; }
template <auto operation, bool flushes, bool saturates>
constexpr auto modified = [](auto... x)
  requires std::is_invocable_v<decltype(operation), decltype(x)...>
{
  float result = operation((flushes ? flush(x) : x)...);
  if (flushes) result = flush(result);
  return saturates ? saturate(result) : result;
};
template <auto operation>
Handler float_handler(const Ins& i) {
  if (i.type == Type::f32 && i.ftz)
    return i.sat ? apply<modified<operation, true, true>, float>
                 : apply<modified<operation, true, false>, float>;
  if (i.type == Type::f32 && i.sat) return apply<modified<operation, false, true>, float>;
  return floats<operation>(i.type);
}
template <auto operation>
Handler number_handler(const Ins& i) {
  const Handler handler = float_handler<operation>(i);
  return handler ? handler : integers<operation>(i.type);
}

Handler directed_handler(const Ins& i) {
  const auto choose = [&]<Round how>() -> Handler {
    switch (i.op) {
      case Op::add:
        return float_handler<add_directed<how>>(i);
      case Op::sub:
        return float_handler<subtract_directed<how>>(i);
      case Op::mul_lo:
        return float_handler<multiply_directed<how>>(i);
      case Op::mad_lo:
      case Op::fma:
        if (i.type != Type::f32) return nullptr;
        return float_handler<multiply_add_directed<how>>(i);
      default:
        return nullptr;
    }
  };
  if (i.round == Round::rz) return choose.operator()<Round::rz>();
  if (i.round == Round::rm) return choose.operator()<Round::rm>();
  return choose.operator()<Round::rp>();
}
Handler clamped_handler(const Ins& i) {
  switch (i.op) {
    case Op::add:
      return apply<add_clamped, s32>;
    case Op::sub:
      return apply<subtract_clamped, s32>;
    case Op::mad_hi:
      return apply<multiply_high_add_clamped, s32>;
    default:
      return nullptr;
  }
}

// Machine-dependent results, says the manual: nobody wants them.
template <auto operation, typename T>
void divide_checked(Warp& w, const Ins& i) {
  const T* const b = reg<T>(w, i.b);
  u32 zero = 0;
  each_lane([&](int l) { zero |= b[l] == 0 ? 1u << l : 0u; });
  if (zero & w.active)
    fault(w, i, kLaunchFailed, std::countr_zero(zero & w.active), "integer division by zero");
  apply<operation, T>(w, i);
}
template <auto operation>
Handler division(Type type) {
  return for_integers(type,
                      [](auto t) -> Handler { return divide_checked<operation, decltype(t)>; });
}

Handler wide_handler(const Ins& i) {
  const bool adds = i.op == Op::mad_wide;
  switch (i.type) {
    case Type::u16:
      return adds ? multiply_add_wide<u16> : multiply_wide<u16>;
    case Type::s16:
      return adds ? multiply_add_wide<s16> : multiply_wide<s16>;
    case Type::s32:
      return adds ? multiply_add_wide<s32> : multiply_wide<s32>;
    default:
      return adds ? multiply_add_wide<u32> : multiply_wide<u32>;
  }
}

Handler function_handler(const Ins& i) {
  switch (i.op) {
    case Op::copysign:
      return floats<copy_sign>(i.type);
    case Op::rcp:
      return float_handler<reciprocal>(i);
    case Op::sqrt:
      return float_handler<square_root>(i);
    case Op::rsqrt:
      return float_handler<reciprocal_square_root>(i);
    case Op::ex2:
      return float_handler<exponential>(i);
    case Op::lg2:
      return float_handler<logarithm>(i);
    case Op::sin:
      return float_handler<sine>(i);
    case Op::cos:
      return float_handler<cosine>(i);
    case Op::tanh:
      return float_handler<hyperbolic_tangent>(i);
    default:
      return nullptr;
  }
}

}  // namespace

Handler arithmetic_handler(const Ins& i) {
  if (is_directed(i.round)) return directed_handler(i);
  if (i.sat && i.type == Type::s32) return clamped_handler(i);
  switch (i.op) {
    case Op::add:
      return number_handler<add>(i);
    case Op::sub:
      return number_handler<subtract>(i);
    case Op::mul_lo:
      return number_handler<multiply>(i);
    case Op::mul_hi:
      return integers<multiply_high>(i.type);
    case Op::mad_lo:
    case Op::fma:
      return number_handler<multiply_add>(i);
    case Op::mad_hi:
      return integers<multiply_high_add>(i.type);
    case Op::mul_wide:
    case Op::mad_wide:
      return wide_handler(i);
    case Op::div:
      if (const Handler handler = float_handler<divide>(i)) return handler;
      return division<divide>(i.type);
    case Op::rem:
      return division<remainder>(i.type);
    case Op::min:
      return i.combine ? float_handler<minimum_or_nan>(i) : number_handler<minimum>(i);
    case Op::max:
      return i.combine ? float_handler<maximum_or_nan>(i) : number_handler<maximum>(i);
    case Op::neg:
      return number_handler<negate>(i);
    case Op::abs:
      return number_handler<absolute>(i);
    default:
      return function_handler(i);
  }
}

}  // namespace vgpu
