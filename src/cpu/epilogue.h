// What a convolution does with its sums as it stores them.
#pragma once

#include <cstdint>

#include "elements.h"

namespace convnet {

// What becomes of an output before it is stored; pointers may be null.
template <class T>
struct Epilogue {
  const float* bias;  // [channels]
  bool relu;          // a NaN stays one
  const T* mask;      // laid out as the image: zero where it is <= 0

  CONVNET_INLINE void store(const float* from, T* to, std::int64_t offset, int channel,
                            int width) const {
    if (mask != nullptr) {
      CONVNET_SIMD
      for (int c = 0; c < width; ++c) {
        write(to + offset + c, read(mask[offset + c]) <= 0 ? 0.0f : from[c]);
      }
    } else if (bias != nullptr && relu) {
      CONVNET_SIMD
      for (int c = 0; c < width; ++c) {
        const float y = from[c] + bias[channel + c];
        write(to + offset + c, y < 0 ? 0.0f : y);
      }
    } else {
      CONVNET_SIMD
      for (int c = 0; c < width; ++c) {
        const float y = bias != nullptr ? from[c] + bias[channel + c] : from[c];
        write(to + offset + c, relu && y < 0 ? 0.0f : y);
      }
    }
  }
};

}  // namespace convnet
