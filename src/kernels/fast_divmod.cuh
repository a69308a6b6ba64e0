// Division by a number that is known when a kernel is launched, such as a tensor's width: a
// multiplication and a shift, where a division of its own would take some 20 instructions.
//
// Source: Granlund and Montgomery, "Division by invariant integers using multiplication", PLDI
// 1994, figure 4.1: with shift = ceil(log2 d) and multiplier = floor(2^32 (2^shift - d) / d) + 1,
// n / d = (n + n * multiplier / 2^32) / 2^shift. The sum fits in 32 bits here, as n is below 2^31.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace convnet {

class FastDivmod {
 public:
  FastDivmod() = default;

  // 1 <= divisor < 2^31
  explicit FastDivmod(std::int64_t divisor) : divisor_(static_cast<unsigned>(divisor)) {
    while ((std::int64_t{1} << shift_) < divisor) ++shift_;
    const std::uint64_t excess = (std::uint64_t{1} << shift_) - divisor_;
    multiplier_ = static_cast<unsigned>((excess << 32) / divisor_ + 1);
  }

  // n / divisor for n < 2^31.
  __device__ unsigned quotient(unsigned n) const {
    return (n + __umulhi(n, multiplier_)) >> shift_;
  }

  // Replaces n by n / divisor and returns n % divisor: takes the last index off a flat one.
  __device__ int split(unsigned* n) const {
    const unsigned whole = quotient(*n);
    const unsigned rest = *n - whole * divisor_;
    *n = whole;
    return static_cast<int>(rest);
  }

 private:
  unsigned divisor_ = 1, multiplier_ = 1;
  int shift_ = 0;
};

}  // namespace convnet
