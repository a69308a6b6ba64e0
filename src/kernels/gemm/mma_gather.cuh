// What mma_*.cu read: the sources of mma_multiply(). Each starts the copies of its elements of a
// step, 16 bytes at a time (kVector) or 4, with zeros for what is beyond the image or the matrix.
//
// Indices are as in gather.cuh: 32-bit and unsigned, wrapping around, so that one comparison finds
// both sides of the image.
#pragma once

#include "gather.cuh"
#include "kernels/fast_divmod.cuh"
#include "mma.cuh"

namespace convnet {

// The order of k = (t, u, c) in a product. With channels in sixteens a step is 16 channels of one
// tap, and the taps run first: then consecutive steps read the same pixels but for a shift by one,
// and find them in L1. L2, which tensor cores outrun, is read about once instead of R S times. Else
// the order is that of the filters in memory.
struct KOrder {
  bool in_sixteens;
  FastDivmod by_channels, by_taps;

  // Tap and channel of k = first_k + i, where first_k is where a step begins.
  __device__ void split(unsigned first_k, unsigned i, unsigned* tap, unsigned* channel) const {
    if (in_sixteens) {
      unsigned sixteen = first_k / kMmaK;
      *tap = by_taps.split(&sixteen);
      *channel = sixteen * kMmaK + i;
    } else {
      *tap = first_k + i;
      *channel = by_channels.split(tap);
    }
  }
};

// Of a convolution with so many channels (in dgrad: filters) in a group, and taps.
inline KOrder k_order(unsigned channels, unsigned taps) {
  return {channels % kMmaK == 0 && taps > 1, FastDivmod(channels), FastDivmod(taps)};
}

// The pixels that a filter sees: PixelRows of gather.cuh.
template <class T, bool kVector, int kSign>
class MmaPixelRows : public CopyAlongK<T::kM, T::kThreads, kVector, true> {
  using Base = CopyAlongK<T::kM, T::kThreads, kVector, true>;

 public:
  __device__ MmaPixelRows(const float* image, const Taps& taps, const KOrder& order)
      : image_(image), taps_(taps), order_(order) {}

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
    unsigned tap, channel;
    order_.split(first_k, Base::k(), &tap, &channel);
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
  const KOrder& order_;
  unsigned top_[Base::kLoads], left_[Base::kLoads], start_[Base::kLoads];
};

// The filters of a group as they lie in memory, rows of B of `length` elements.
template <class T, bool kVector>
class MmaFilters : public CopyAlongK<T::kN, T::kThreads, kVector> {
  using Base = CopyAlongK<T::kN, T::kThreads, kVector>;

 public:
  // `filters` are left from `w` on, each of taps of `channels`.
  __device__ MmaFilters(const float* w, unsigned first, unsigned filters, unsigned channels,
                        unsigned length, const KOrder& order)
      : w_(w),
        first_(first),
        filters_(filters),
        channels_(channels),
        length_(length),
        order_(order) {}

  __device__ void copy(float* stage, unsigned first_k) {
    const unsigned k = first_k + Base::k();
    unsigned place = k;
    if (order_.in_sixteens) {
      unsigned tap, channel;
      order_.split(first_k, Base::k(), &tap, &channel);
      place = tap * channels_ + channel;
    }
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned filter = first_ + Base::row(load);
      Base::copy(stage, load, w_ + (filter * length_ + place), filter < filters_ && k < length_);
    }
  }

 private:
  const float* w_;
  unsigned first_, filters_, channels_, length_;
  const KOrder& order_;
};

}  // namespace convnet
