// What mma_*.cu read: the sources of mma_multiply(). Each starts the copies of its elements of a
// step, 16 bytes at a time (kVector) or 4, with zeros for what is beyond the image or the matrix.
//
// Indices are as in gather.cuh: 32-bit and unsigned, wrapping around, so that one comparison finds
// both sides of the image.
#pragma once

#include "divider.cuh"
#include "gather.cuh"
#include "mma_tile.cuh"

namespace convnet {

// The pixels that a filter sees: PixelRows of gather.cuh.
template <class T, bool kVector, int kSign>
class MmaPixelRows : public CopyAlongK<T::kM, T::kThreads, kVector> {
  using Base = CopyAlongK<T::kM, T::kThreads, kVector>;

 public:
  __device__ MmaPixelRows(const float* image, const Taps& taps) : image_(image), taps_(taps) {}

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

  __device__ void copy(float* stage, unsigned first_k) {
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
      Base::copy(stage, load, image_ + (start_[load] + offset), inside);
    }
  }

 private:
  const float* image_;
  const Taps& taps_;
  unsigned top_[Base::kLoads], left_[Base::kLoads], start_[Base::kLoads];
};

// The filters of a group as they lie in memory, rows of B of `length` elements.
template <class T, bool kVector>
class MmaFilters : public CopyAlongK<T::kN, T::kThreads, kVector> {
  using Base = CopyAlongK<T::kN, T::kThreads, kVector>;

 public:
  // `filters` are left from `w` on.
  __device__ MmaFilters(const float* w, unsigned first, unsigned filters, unsigned length)
      : w_(w), first_(first), filters_(filters), length_(length) {}

  __device__ void copy(float* stage, unsigned first_k) {
    const unsigned k = first_k + Base::k();
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned filter = first_ + Base::row(load);
      Base::copy(stage, load, w_ + (filter * length_ + k), filter < filters_ && k < length_);
    }
  }

 private:
  const float* w_;
  unsigned first_, filters_, length_;
};

}  // namespace convnet
