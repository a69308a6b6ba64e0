// Arithmetic on integers and floating-point numbers: PTX ISA, "Integer Arithmetic Instructions" and
// "Floating Point Instructions".
#include <algorithm>
#include <cmath>

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
// What a division by zero gives the manual leaves open: all ones, as GPUs do. The most negative
// number by -1 wraps.
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
// Of a number and a NaN, the number.
constexpr auto minimum = [](auto x, auto y) { return x != x ? y : y != y ? x : x < y ? x : y; };
constexpr auto maximum = [](auto x, auto y) { return x != x ? y : y != y ? x : x > y ? x : y; };
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

// .rz, .rm and .rp of float32, by way of double. A double holds a product of two floats exactly;
// of a sum it may round, which the direction of rounding then does not see.
void add_directed(Warp& w, const Ins& i) {
  float* const d = reg<float>(w, i.d);
  const float *const a = reg<float>(w, i.a), *const b = reg<float>(w, i.b);
  write_lanes(w, d,
              [&](int l) { return round_to_float(static_cast<double>(a[l]) + b[l], i.round); });
}
void multiply_directed(Warp& w, const Ins& i) {
  float* const d = reg<float>(w, i.d);
  const float *const a = reg<float>(w, i.a), *const b = reg<float>(w, i.b);
  write_lanes(w, d,
              [&](int l) { return round_to_float(static_cast<double>(a[l]) * b[l], i.round); });
}
void multiply_add_directed(Warp& w, const Ins& i) {
  float* const d = reg<float>(w, i.d);
  const float *const a = reg<float>(w, i.a), *const b = reg<float>(w, i.b),
                     *const c = reg<float>(w, i.c);
  write_lanes(w, d, [&](int l) {
    return round_to_float(std::fma(static_cast<double>(a[l]), b[l], static_cast<double>(c[l])),
                          i.round);
  });
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

}  // namespace

Handler arithmetic_handler(const Ins& i) {
  const bool directed =
      i.type == Type::f32 && (i.round == Round::rz || i.round == Round::rm || i.round == Round::rp);
  switch (i.op) {
    case Op::add:
      return directed ? add_directed : numbers<add>(i.type);
    case Op::sub:
      return numbers<subtract>(i.type);
    case Op::mul_lo:
      return directed ? multiply_directed : numbers<multiply>(i.type);
    case Op::mul_hi:
      return integers<multiply_high>(i.type);
    case Op::mad_lo:
    case Op::fma:
      return directed ? multiply_add_directed : numbers<multiply_add>(i.type);
    case Op::mad_hi:
      return integers<multiply_high_add>(i.type);
    case Op::mul_wide:
    case Op::mad_wide:
      return wide_handler(i);
    case Op::div:
      return numbers<divide>(i.type);
    case Op::rem:
      return integers<remainder>(i.type);
    case Op::min:
      return numbers<minimum>(i.type);
    case Op::max:
      return numbers<maximum>(i.type);
    case Op::neg:
      return numbers<negate>(i.type);
    case Op::abs:
      return numbers<absolute>(i.type);
    case Op::copysign:
      return floats<copy_sign>(i.type);
    case Op::rcp:
      return floats<reciprocal>(i.type);
    case Op::sqrt:
      return floats<square_root>(i.type);
    case Op::rsqrt:
      return floats<reciprocal_square_root>(i.type);
    case Op::ex2:
      return floats<exponential>(i.type);
    case Op::lg2:
      return floats<logarithm>(i.type);
    case Op::sin:
      return floats<sine>(i.type);
    case Op::cos:
      return floats<cosine>(i.type);
    default:
      return nullptr;
  }
}

}  // namespace vgpu
