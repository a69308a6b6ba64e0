// What maxpool.cu and lrn_maxpool.cu share: the winner of a window, and the gather of gradients.
#pragma once

#include "device/vectors.h"
#include "floats.cuh"
#include "ops.h"
#include "pool.cuh"

namespace convnet {

// The winners of kChannels neighbouring channels, as bytes; four are one 32-bit access.
template <int kChannels>
__device__ inline void store_codes(std::uint8_t* argmax, const int (&code)[kChannels]) {
  if constexpr (kChannels == 4) {
    const auto byte = [](int value) { return static_cast<unsigned char>(value); };
    *reinterpret_cast<uchar4*>(argmax) =
        make_uchar4(byte(code[0]), byte(code[1]), byte(code[2]), byte(code[3]));
  } else {
    *argmax = static_cast<std::uint8_t>(code[0]);
  }
}

template <int kChannels>
__device__ inline void load_codes(const std::uint8_t* argmax, int (&code)[kChannels]) {
  if constexpr (kChannels == 4) {
    const uchar4 four = *reinterpret_cast<const uchar4*>(argmax);
    code[0] = four.x;
    code[1] = four.y;
    code[2] = four.z;
    code[3] = four.w;
  } else {
    code[0] = *argmax;
  }
}

template <int kChannels>
struct Best {
  Floats<kChannels> value;
  int code[kChannels];

  __device__ void offer(const Floats<kChannels>& x, int new_code) {
    for (int t = 0; t < kChannels; ++t) {
      // Greater, or the first NaN.
      const bool wins = !(x.v[t] <= value.v[t]) && value.v[t] == value.v[t];
      value.v[t] = wins ? x.v[t] : value.v[t];
      code[t] = wins ? new_code : code[t];
    }
  }
};

// The sum of dy over the windows whose winner is pixel (n, h, w), for kChannels channels.
template <int kChannels, class T>
__device__ inline Floats<kChannels> gathered(const PoolIndex& index, unsigned n, int h, int w,
                                             int channel, const T* dy, const std::uint8_t* argmax) {
  const PoolShape& shape = index.shape;
  const Span ps = covering_span(h, index.by_stride_h, shape.pad_h, shape.size_h, shape.p);
  const Span qs = covering_span(w, index.by_stride_w, shape.pad_w, shape.size_w, shape.q);
  Floats<kChannels> sum = all_floats<kChannels>(0.0f);
  for (int p = ps.begin; p < ps.end; ++p) {
    const int r = h + shape.pad_h - p * shape.stride_h;
    for (int q = qs.begin; q < qs.end; ++q) {
      const int here = r * shape.size_w + w + shape.pad_w - q * shape.stride_w;
      const std::int64_t at = ((n * shape.p + p) * shape.q + q) * std::int64_t{shape.c} + channel;
      int code[kChannels];
      load_codes<kChannels>(argmax + at, code);
      const Floats<kChannels> grad = load_floats<kChannels>(dy + at);
      for (int t = 0; t < kChannels; ++t) sum.v[t] += code[t] == here ? grad.v[t] : 0.0f;
    }
  }
  return sum;
}

template <class T>
bool four_channels(const PoolShape& shape, const T* a, const T* b, const std::uint8_t* argmax) {
  return shape.c % 4 == 0 && aligned4(a) && aligned4(b) &&
         reinterpret_cast<std::uintptr_t>(argmax) % 4 == 0;
}

}  // namespace convnet
