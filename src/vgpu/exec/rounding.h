// Roundings that C++ has no operator for.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#include "../ptx.h"

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

// The 16 bits of the nearest bfloat16, halves to even.
inline std::uint32_t to_bf16(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline float from_bf16(std::uint32_t bits) { return std::bit_cast<float>(bits << 16); }

// Tensor cores ignore the low 13 bits of a TF32 operand.
inline float from_tf32(std::uint32_t bits) { return std::bit_cast<float>(bits & ~0x1fffu); }

}  // namespace vgpu
