// e^x, log, tanh and their relatives in single precision, written so that loops over them
// vectorise.
//
// Every function is a branch-free formula: it passes NaN on, gives the infinities and zeros of the
// C library, and is within 3 units in the last place unless it says otherwise. The polynomials are
// minimax fits over the ranges named beside them.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "elements.h"

namespace convnet {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kLog2E = 1.44269504f;
// log(2) in two parts. The high one has 10 bits, so that its product with an exponent is exact.
constexpr float kLn2High = 0.693359375f;
constexpr float kLn2Low = -2.12194440e-4f;
// Adding and subtracting this rounds to the nearest integer, which is left in the low bits.
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23

// The integer nearest to x, |x| < 2^22, as a float and as an int.
struct Rounded {
  float value;
  std::int32_t integer;
};

CONVNET_INLINE Rounded nearest(float x) {
  const float shifted = x + kRounder;
  return {shifted - kRounder,
          static_cast<std::int32_t>(float_bits(shifted) - float_bits(kRounder))};
}

// x * 2^n for n in [-252, 254], in two steps because 2^n itself may not be a float.
CONVNET_INLINE float scale_by_power_of_two(float x, std::int32_t n) {
  const std::int32_t half = n >> 1;
  return x * float_from_bits(static_cast<std::uint32_t>(half + 127) << 23) *
         float_from_bits(static_cast<std::uint32_t>(n - half + 127) << 23);
}

// e^r for |r| <= log(2) / 2.
CONVNET_INLINE float exp_reduced(float r) {
  float q = 1.38131434e-3f;
  q = q * r + 8.36941897e-3f;
  q = q * r + 4.16684568e-2f;
  q = q * r + 0.166665148f;
  q = q * r + 0.499999931f;
  return q * r * r + r + 1.0f;
}

CONVNET_INLINE float fast_exp(float x) {
  // Beyond these e^x is 0 or infinity. Written so that NaN stays.
  x = -105.0f > x ? -105.0f : x;
  x = 89.0f < x ? 89.0f : x;
  const Rounded n = nearest(x * kLog2E);
  const float r = (x - n.value * kLn2High) - n.value * kLn2Low;
  return scale_by_power_of_two(exp_reduced(r), n.integer);
}

// x = 2^exponent * (1 + fraction) with 1 + fraction in [sqrt(1/2), sqrt(2)), for finite x > 0.
struct Split {
  float exponent, fraction;
};

CONVNET_INLINE Split split(float x) {
  constexpr float kSmallestNormal = 1.17549435e-38f;
  const bool tiny = x < kSmallestNormal;
  const float scaled = tiny ? x * 8388608.0f : x;  // 2^23
  // Subtracting the bits of sqrt(1/2) makes the exponent field round where we want it to.
  constexpr std::uint32_t kSqrtHalf = 0x3f3504f3;
  const std::uint32_t shifted = float_bits(scaled) - kSqrtHalf;
  const std::int32_t exponent = static_cast<std::int32_t>(shifted) >> 23;
  const float mantissa = float_from_bits((shifted & 0x007fffff) + kSqrtHalf);
  return {static_cast<float>(exponent) - (tiny ? 23.0f : 0.0f), mantissa - 1.0f};
}

// (log(1 + f) - f) for 1 + f in [sqrt(1/2), sqrt(2)).
CONVNET_INLINE float log1p_tail(float f) {
  float p = 6.74664179e-2f;
  p = p * f - 0.116756575f;
  p = p * f + 0.118881648f;
  p = p * f - 0.124055882f;
  p = p * f + 0.142195519f;
  p = p * f - 0.166679959f;
  p = p * f + 0.200021187f;
  p = p * f - 0.250000096f;
  p = p * f + 0.333333126f;
  return (p * f - 0.5f) * f * f;
}

CONVNET_INLINE float fast_log(float x) {
  const Split s = split(x);
  const float y =
      (log1p_tail(s.fraction) + s.exponent * kLn2Low) + s.fraction + s.exponent * kLn2High;
  const float above_zero = x > 0.0f ? y : (x == 0.0f ? -kInfinity : kNan);
  return x < kInfinity ? above_zero : x;  // infinity and NaN are their own logarithms
}

// log(1 + u) for u in [0, 1], without rounding 1 + u: it is 1 + f, or 2 (1 + f).
CONVNET_INLINE float fast_log1p(float u) {
  const bool large = u > 0.414213562f;
  const float f = large ? 0.5f * u - 0.5f : u;
  return (log1p_tail(f) + f) + (large ? 0.693147181f : 0.0f);
}

CONVNET_INLINE float fast_sigmoid(float x) {
  // By e^-|x|, which cannot overflow.
  const float e = fast_exp(-std::fabs(x));
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

// log(1 + e^x) = max(0, x) + log(1 + e^-|x|)
CONVNET_INLINE float fast_softplus(float x) {
  return (0.0f > x ? 0.0f : x) + fast_log1p(fast_exp(-std::fabs(x)));
}

// (tanh(x) - x) / x for |x| < 0.625, where formulas by e^x would cancel.
CONVNET_INLINE float tanh_tail(float x) {
  const float z = x * x;
  float p = 2.29283024e-3f;
  p = p * z - 8.34402946e-3f;
  p = p * z + 2.17689476e-2f;
  p = p * z - 5.39592637e-2f;
  p = p * z + 0.133333036f;
  p = p * z - 0.333333332f;
  return p * z;
}

// tanh(|x|) elsewhere.
CONVNET_INLINE float tanh_far(float magnitude) {
  return 1.0f - 2.0f / (fast_exp(2.0f * magnitude) + 1.0f);
}

CONVNET_INLINE float fast_tanh(float x) {
  const float magnitude = std::fabs(x);
  const float far = std::copysign(tanh_far(magnitude), x);
  return magnitude < 0.625f ? tanh_tail(x) * x + x : far;
}

// x - tanh(x), which is about x^3 / 3 near 0; within 10 units in the last place.
CONVNET_INLINE float fast_minus_tanh(float x) {
  const float magnitude = std::fabs(x);
  const float far = std::copysign(magnitude - tanh_far(magnitude), x);
  return magnitude < 0.625f ? -tanh_tail(x) * x : far;
}

// x^(-3/4) for finite normal x > 0, without square roots and divisions; within 4 units in the last
// place.
CONVNET_INLINE float power_minus_three_quarters(float x) {
  // Dividing the bits of x by -4 gives x^(-1/4) within 4%, as the bits are nearly its logarithm.
  // What remains is a series in r = 1 - x y^4, |r| < 0.125: x^(-3/4) = y^3 (1 - r)^(-3/4).
  const float y = float_from_bits(0x4f582000u - (float_bits(x) >> 2));
  const float y2 = y * y;
  const float r = 1.0f - x * (y2 * y2);
  float p = 0.525665669f;
  p = p * r + 0.549691488f;
  p = p * r + 0.56387939f;
  p = p * r + 0.601452035f;
  p = p * r + 0.656250134f;
  p = p * r + 0.750000218f;
  p = p * r + 1.0f;
  return (y2 * y) * p;
}

// b in two parts for power_minus(): high has 12 bits, so that its product with the exponent of a
// float is exact.
struct Exponent {
  float high, low;
};

inline Exponent split_exponent(float b) {
  const float high = float_from_bits(float_bits(b) & 0xfffff000u);
  return {high, b - high};
}

// x^-b for x > 0, infinity included.
CONVNET_INLINE float power_minus(float x, Exponent b) {
  // 2^(-b e) 2^(-b log2(1 + f)): the first exponent is large and has to be exact, the second small.
  const Split s = split(x);
  const float whole = -b.high * s.exponent;
  const float limited = whole < -1000.0f ? -1000.0f : (whole > 1000.0f ? 1000.0f : whole);
  const float n = nearest(limited).value;
  const float log_fraction = (log1p_tail(s.fraction) + s.fraction) * kLog2E;
  const float rest = (limited - n) - b.low * s.exponent - (b.high + b.low) * log_fraction;
  const float m = nearest(rest).value;
  const float total = n + m;
  const float bounded = total < -252.0f ? -252.0f : (total > 254.0f ? 254.0f : total);
  const float y =
      scale_by_power_of_two(exp_reduced((rest - m) * 0.693147181f), nearest(bounded).integer);
  const float at_ends = x == kInfinity ? 0.0f : x;  // or NaN
  return x < kInfinity ? y : at_ends;
}

}  // namespace convnet
