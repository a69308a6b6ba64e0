// The pixels that a filter sees, as the rows of a matrix: the source A of conv_fprop.cu (pixels of
// x) and conv_dgrad.cu (pixels of dy).
//
//   A[m, k] = image[n_m, top_m + kSign t, left_m + kSign u, first_channel + c],   k = (t, u, c)
//
// and 0 beyond the image. (n_m, top_m, left_m) is where row m starts; a pass gives it to
// begin_row(). Which (t, u, c) a k is takes two multiplications a step, as channels and taps are
// Dividers; what is left for a row is two comparisons and an addition.
//
// Places are unsigned and wrap around: one that is above or left of the image becomes larger than
// the image, so that one comparison finds both sides. Offsets wrap too, and are right where they
// are used, as tensors have less than 2^31 elements.
#pragma once

#include "kernels/fast_divmod.cuh"
#include "simt.cuh"

namespace convnet {

// What the rows have in common. Image: [*, height, width, pitch].
struct Taps {
  unsigned height, width, pitch;
  unsigned length;                   // of a row of A: taps * channels
  FastDivmod by_channels, by_width;  // from k: channels of a group, taps in a row
};

template <class T, bool kVector, int kSign>
class PixelRows : public AlongK<T::kM, T::kThreads, kVector> {
  using Base = AlongK<T::kM, T::kThreads, kVector>;

 public:
  __device__ PixelRows(const float* image, const Taps& taps) : image_(image), taps_(taps) {}

  __device__ void begin_row(int load, unsigned n, unsigned top, unsigned left,
                            unsigned first_channel) {
    top_[load] = top;
    left_[load] = left;
    start_[load] = ((n * taps_.height + top) * taps_.width + left) * taps_.pitch + first_channel;
  }
  // For rows past the last: a place that no tap brings into the image.
  __device__ void skip_row(int load) {
    top_[load] = kSign > 0 ? 0x80000000u : 0xffffffffu;
    left_[load] = start_[load] = 0;
  }

  __device__ void fetch(unsigned first_k) {
    const unsigned k = first_k + Base::k();
    unsigned tap = k;
    const unsigned channel = taps_.by_channels.split(&tap);
    unsigned u = taps_.by_width.split(&tap), t = tap;
    if constexpr (kSign < 0) {
      u = 0u - u;
      t = 0u - t;
    }
    const unsigned offset = (t * taps_.width + u) * taps_.pitch + channel;
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const bool inside =
          k < taps_.length && top_[load] + t < taps_.height && left_[load] + u < taps_.width;
      read(this->values[load], image_, start_[load] + offset, inside);
    }
  }

 private:
  const float* image_;
  const Taps& taps_;
  unsigned top_[Base::kLoads], left_[Base::kLoads], start_[Base::kLoads];
};

}  // namespace convnet
