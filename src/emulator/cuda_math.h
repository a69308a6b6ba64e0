// CUDA's math functions that <cmath> lacks. Part of cuda_emulator.h.
//
// The fast ones (__expf ...) are exact here, so compare with CUDA within a tolerance.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define CONVNET_MIN_MAX(T)                         \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
CONVNET_MIN_MAX(int)
CONVNET_MIN_MAX(unsigned)
CONVNET_MIN_MAX(long)
CONVNET_MIN_MAX(unsigned long)
CONVNET_MIN_MAX(long long)
CONVNET_MIN_MAX(unsigned long long)
#undef CONVNET_MIN_MAX
// Of a number and a NaN, the number, as CUDA's; without a call into the math library.
inline float min(float a, float b) { return b < a || a != a ? b : a; }
inline float max(float a, float b) { return a < b || a != a ? b : a; }
inline double min(double a, double b) { return b < a || a != a ? b : a; }
inline double max(double a, double b) { return a < b || a != a ? b : a; }

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __exp10f(float x) { return std::pow(10.0f, x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __tanhf(float x) { return std::tanh(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frsqrt_rn(float x) { return 1.0f / std::sqrt(x); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
// These never become part of a fused multiply-add, in CUDA as here.
inline float __fadd_rn(float a, float b) {
  volatile float sum = a + b;
  return sum;
}
inline float __fsub_rn(float a, float b) {
  volatile float difference = a - b;
  return difference;
}
inline float __fmul_rn(float a, float b) {
  volatile float product = a * b;
  return product;
}

template <typename To, typename From>
inline To convnet_bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast between sizes");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline int __float_as_int(float x) { return convnet_bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return convnet_bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return convnet_bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return convnet_bit_cast<float>(x); }

namespace convnet::emulator {
// x as a float, its low bits cut off. Exact but for results too small for a normal float.
inline float round_to_zero(double x) {
  const auto bits = convnet_bit_cast<std::uint64_t>(x);
  return static_cast<float>(convnet_bit_cast<double>(bits & ~((std::uint64_t{1} << 29) - 1)));
}
}  // namespace convnet::emulator

inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }
inline int __float2int_ru(float x) { return static_cast<int>(std::ceil(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}
inline int __mulhi(int a, int b) {
  return static_cast<int>(static_cast<std::int64_t>(a) * b >> 32);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32);
}
