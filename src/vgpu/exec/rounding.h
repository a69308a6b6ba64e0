// Roundings that C++ has no operator for.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "vgpu/ptx/instruction.h"

namespace vgpu {

// Toward zero (rz), down (rm) or up (rp); else to the nearest.
inline float round_to_float(double exact, Round how) {
  const float nearest = static_cast<float>(exact);
  const double rounded = static_cast<double>(nearest);
  if (how == Round::rz && std::fabs(rounded) > std::fabs(exact))
    return std::nextafterf(nearest, 0.0f);
  if (how == Round::rm && rounded > exact) return std::nextafterf(nearest, -INFINITY);
  if (how == Round::rp && rounded < exact) return std::nextafterf(nearest, INFINITY);
  return nearest;
}

inline bool is_directed(Round how) {
  return how == Round::rz || how == Round::rm || how == Round::rp;
}

// The number that is `nearest` + `error`, where the nearest is that of its type, rounded as told.
template <typename T>
T round_directed(T nearest, T error, Round how) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  if (error == 0) return nearest;
  const bool down = how == Round::rm || (how == Round::rz && nearest > 0);
  if (down == (error < 0)) return std::nextafter(nearest, down ? -kInfinity : kInfinity);
  return nearest;
}

// .ftz: a subnormal number counts as the zero of its sign.
inline float flush(float x) {
  return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

// What x + y lacks of the sum, exactly; 0 where it is not finite.
inline double sum_error(double x, double y) {
  const double sum = x + y, part = sum - x;
  return std::isfinite(sum) ? (x - (sum - part)) + (y - part) : 0.0;
}

// x + y in which the last bit also says that something was cut off: rounded to float, it gives what
// the exact sum gives.
inline double sticky_sum(double x, double y) {
  const double sum = x + y, error = sum_error(x, y);
  if (error == 0 || std::bit_cast<std::uint64_t>(sum) & 1) return sum;
  return std::nextafter(sum, error < 0 ? -HUGE_VAL : HUGE_VAL);
}

// A sum of zero has the sign of both operands; where they differ, it is positive but for .rm.
template <typename T>
T sign_of_zero(T sum, T x, T y, Round how) {
  if (sum != 0 || std::signbit(x) == std::signbit(y)) return sum;
  return how == Round::rm ? -T(0) : T(0);
}

// The 16 bits of the nearest bfloat16, halves to even, or of the next one toward zero.
inline std::uint32_t to_bf16(float x, Round how = Round::rn) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return 0x7fff;
  return how == Round::rz ? bits >> 16 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline float from_bf16(std::uint32_t bits) { return std::bit_cast<float>(bits << 16); }

// The nearest TF32 number, halves away from zero.
inline std::uint32_t to_tf32(float x) {
  if (x != x) return 0x7fffffff;
  return std::isinf(x) ? std::bit_cast<std::uint32_t>(x)
                       : (std::bit_cast<std::uint32_t>(x) + 0x1000) & ~0x1fffu;
}
// Tensor cores ignore the low 13 bits of a TF32 operand.
inline float from_tf32(std::uint32_t bits) { return std::bit_cast<float>(bits & ~0x1fffu); }

}  // namespace vgpu
