// Philox4x32-10, a counter-based random number generator: the number at a position is a pure
// function of (key, counter), so every backend, device and rank draws the same one in any order.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
//
// convnet's counters: {index / 4 low, index / 4 high, stream, step}; number index % 4 of the four
// is the one at `index`. The key is the 64-bit seed.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define CONVNET_HOST_DEVICE __host__ __device__
#else
#define CONVNET_HOST_DEVICE
#endif

namespace convnet {

struct Philox4 {
  std::uint32_t v[4];
};

CONVNET_HOST_DEVICE inline Philox4 philox4x32(std::uint64_t seed, std::uint64_t index4,
                                              std::uint32_t stream, std::uint32_t step) {
  std::uint32_t c0 = static_cast<std::uint32_t>(index4);
  std::uint32_t c1 = static_cast<std::uint32_t>(index4 >> 32);
  std::uint32_t c2 = stream, c3 = step;
  std::uint32_t k0 = static_cast<std::uint32_t>(seed);
  std::uint32_t k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t m0 = 0xD2511F53ull * c0;
    const std::uint64_t m1 = 0xCD9E8D57ull * c2;
    c0 = static_cast<std::uint32_t>(m1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(m1);
    c2 = static_cast<std::uint32_t>(m0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(m0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Philox4{{c0, c1, c2, c3}};
}

// Uniform in [0, 1) with 24 bits, exact in float32.
CONVNET_HOST_DEVICE inline float uniform(std::uint32_t bits) {
  return static_cast<float>(bits >> 8) * (1.0f / 16777216.0f);
}

// Dropout keeps an element when its 24-bit number reaches this threshold. Comparing integers makes
// the mask the same on every backend, whatever its floating-point rules.
CONVNET_HOST_DEVICE inline bool dropout_keeps(std::uint32_t bits, std::uint32_t threshold) {
  return (bits >> 8) >= threshold;
}

inline std::uint32_t dropout_threshold(double drop) {
  return static_cast<std::uint32_t>(drop * 16777216.0 + 0.5);
}

}  // namespace convnet
