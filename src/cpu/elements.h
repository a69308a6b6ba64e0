// How vector code reads and writes activations: a float32 as it lies, a bfloat16 widened when it is
// read and rounded when it is written (bfloat16.h).
#pragma once

#include <cstdint>
#include <cstring>

#include "bfloat16.h"
#include "simd.h"

namespace convnet {

// Bits are unsigned, so that arithmetic on those of a NaN may wrap.
CONVNET_INLINE std::uint32_t float_bits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

CONVNET_INLINE float float_from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

CONVNET_INLINE float read(float x) { return x; }
CONVNET_INLINE float read(Bfloat16 x) { return float_from_bits(std::uint32_t{x.bits} << 16); }

// To nearest, ties to even; what is beyond the largest becomes infinite. A NaN stays one, with all
// bits set, which costs vectors the least.
CONVNET_INLINE Bfloat16 rounded(float x) {
  const std::uint32_t bits = float_bits(x);
  const std::uint32_t nearest = bits + 0x7fffu + (bits >> 16 & 1u);
  const std::uint32_t nan = 0u - static_cast<std::uint32_t>(x != x);
  return {static_cast<std::uint16_t>((nearest | nan) >> 16)};
}

CONVNET_INLINE void write(float* to, float x) { *to = x; }
CONVNET_INLINE void write(Bfloat16* to, float x) { *to = rounded(x); }

}  // namespace convnet
