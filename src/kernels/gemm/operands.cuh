// What the passes multiply: where the elements of A and B are in memory.
//
//   C[m, n] = sum_k A[m, k] B[n, k]
//
//   pass          A                    B                     k
//   fprop         PixelRows of x       Filters               (r,s,c)
//   dgrad         PixelRows of dy      TransposedFilters     (r,s,k)
//   wgrad         MatrixColumns, dy    WindowColumns of x    (n,p,q)
//   dense wgrad   MatrixColumns, dy    MatrixColumns, x      n
//
// Dense layers are convolutions of one pixel otherwise. An operand is index arithmetic and nothing
// else: each(first_k, take) calls take(load, from, valid) for what a thread moves of a step, and
// the main loop (simt.cuh, mma.cuh) says how a step is shared among the threads, in `Loop`, and how
// it is moved. `from` is where 4 (or 1) neighbouring elements begin; where they are not `valid`,
// they are zeros: beyond the image, or past the last row or the last k.
//
// Places are unsigned and wrap around: one that is above or left of the image becomes larger than
// the image, so that one comparison finds both sides. Offsets wrap too, and are right where they
// are used, as tensors have less than 2^31 elements. Which (tap, channel) a k is takes two
// multiplications a step (FastDivmod); what is left for a row is two comparisons and an addition.
#pragma once

#include "kernels/fast_divmod.cuh"
#include "ops.h"

namespace convnet {

// ---- k as taps and channels --------------------------------------------------------------------

// The order of k = (tap, channel) in a product. With channels in sixteens, a step of 16 is 16
// channels of one tap (one of 32, two such), and the taps run first: then consecutive steps read the
// same pixels but for a shift by one, and find them in L1. L2, which tensor cores outrun, is read
// about once instead of R S times. Else the order is that of the filters in memory.
struct KOrder {
  bool in_sixteens;
  FastDivmod by_channels, by_taps;

  // Tap and channel of k = first_k + i, where first_k is where a step of kStep begins.
  template <int kStep>
  __device__ void split(unsigned first_k, unsigned i, unsigned* tap, unsigned* channel) const {
    if (kStep % 16 == 0 && in_sixteens) {
      unsigned sixteen = (first_k + (kStep == 16 ? 0 : i)) / 16;
      *tap = by_taps.split(&sixteen);
      *channel = sixteen * 16 + (kStep == 16 ? i : i % 16);
    } else {
      *tap = first_k + i;
      *channel = by_channels.split(tap);
    }
  }
  // Where that is in a filter of so many channels.
  template <int kStep>
  __device__ unsigned place(unsigned first_k, unsigned i, unsigned channels) const {
    if (kStep % 16 != 0 || !in_sixteens) return first_k + i;
    unsigned tap, channel;
    split<kStep>(first_k, i, &tap, &channel);
    return tap * channels + channel;
  }
};

// Of a convolution with so many channels (in dgrad: filters) in a group, and taps.
inline KOrder k_order(unsigned channels, unsigned taps) {
  return {channels % 16 == 0 && taps > 1, FastDivmod(channels), FastDivmod(taps)};
}

// What a filter sees of an image [*, height, width, pitch].
struct Taps {
  unsigned height, width, pitch;
  unsigned length;      // of a row of A: taps * channels
  FastDivmod by_width;  // taps in a row
  KOrder order;
};

// ---- fprop and dgrad ---------------------------------------------------------------------------

// A[m, k] = image[n_m, top_m + kSign t, left_m + kSign u, first_channel + c],   k = (t, u, c)
// (n_m, top_m, left_m) is where row m starts; a pass gives it to begin_row(), or calls skip_row().
template <class Loop, int kSign, class T = float>
class PixelRows : public Loop::template AlongK<Loop::kM, T, true> {
  using Base = typename Loop::template AlongK<Loop::kM, T, true>;

 public:
  __device__ PixelRows(const T* image, const Taps& taps) : image_(image), taps_(taps) {}

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

  template <class Take>
  __device__ void each(unsigned first_k, const Take& take) const {
    const unsigned k = first_k + Base::k();
    unsigned tap, channel;
    taps_.order.split<Base::kStep>(first_k, Base::k(), &tap, &channel);
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
      take(load, image_ + (start_[load] + offset), inside);
    }
  }

 private:
  const T* image_;
  const Taps& taps_;
  unsigned top_[Base::kLoads], left_[Base::kLoads], start_[Base::kLoads];
};

// B[j, k] = w[first + j, k]: the filters of a group as they lie in memory.
template <class Loop>
class Filters : public Loop::template AlongK<Loop::kN, float> {
  using Base = typename Loop::template AlongK<Loop::kN, float>;

 public:
  // `filters` are left from `w` on, each of taps.length elements: taps of `channels`.
  __device__ Filters(const float* w, unsigned first, unsigned filters, unsigned channels,
                     const Taps& taps)
      : w_(w), first_(first), filters_(filters), channels_(channels), taps_(taps) {}

  template <class Take>
  __device__ void each(unsigned first_k, const Take& take) const {
    const unsigned k = first_k + Base::k();
    const unsigned place = taps_.order.place<Base::kStep>(first_k, Base::k(), channels_);
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned filter = first_ + Base::row(load);
      take(load, w_ + (filter * taps_.length + place), filter < filters_ && k < taps_.length);
    }
  }

 private:
  const float* w_;
  unsigned first_, filters_, channels_;
  const Taps& taps_;
};

// B[j, k] = w[filter, first_tap + (stride_h t) S + stride_w u, j],   k = (t, u, filter): the
// filters of a group, read across.
template <class Loop>
class TransposedFilters : public Loop::template AlongRows<Loop::kN, float> {
  using Base = typename Loop::template AlongRows<Loop::kN, float>;

 public:
  __device__ TransposedFilters(const float* w, const ConvShape& shape, const Taps& taps,
                               unsigned first_tap, unsigned first_channel)
      : w_(w),
        shape_(shape),
        taps_(taps),
        channels_(shape.c / shape.groups),
        first_channel_(first_channel),
        first_tap_(first_tap) {}

  template <class Take>
  __device__ void each(unsigned first_k, const Take& take) const {
    const unsigned k = first_k + Base::k();
    unsigned tap, filter;
    taps_.order.split<Base::kStep>(first_k, Base::k(), &tap, &filter);
    const unsigned u = taps_.by_width.split(&tap);
    const unsigned place = first_tap_ + tap * shape_.stride_h * shape_.s + u * shape_.stride_w;
    const unsigned start = (filter * (shape_.r * shape_.s) + place) * channels_;
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned channel = first_channel_ + Base::row(load);
      take(load, w_ + (start + channel), k < taps_.length && channel < channels_);
    }
  }

 private:
  const float* w_;
  const ConvShape& shape_;
  const Taps& taps_;
  unsigned channels_, first_channel_, first_tap_;
};

// ---- wgrad -------------------------------------------------------------------------------------

// M[m, k] = matrix[k, first + m], for a matrix of `length` rows that are `pitch` apart, and first +
// m < end. So dy is read in every gradient of weights, with a pixel for each k, and x in that of a
// dense layer.
template <class Loop, int kRows, class T = float>
class MatrixColumns : public Loop::template AlongRows<kRows, T> {
  using Base = typename Loop::template AlongRows<kRows, T>;

 public:
  __device__ MatrixColumns(const T* matrix, unsigned pitch, unsigned length, unsigned first,
                           unsigned end)
      : matrix_(matrix), pitch_(pitch), length_(length), first_(first), end_(end) {}

  template <class Take>
  __device__ void each(unsigned first_k, const Take& take) const {
    const unsigned k = first_k + Base::k();
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned column = first_ + Base::row(load);
      take(load, matrix_ + (k * pitch_ + column), k < length_ && column < end_);
    }
  }

 private:
  const T* matrix_;
  unsigned pitch_, length_, first_, end_;
};

// What a pixel number stands for, and where its window begins.
struct Windows {
  ConvShape shape;
  FastDivmod by_q, by_p;
};

// B[j, k] = x[window of pixel k, tap and channel j]. Columns past the last tap are read too, as far
// as they lie on the image: what becomes of them is not stored.
template <class Loop, class T = float>
class WindowColumns : public Loop::template AlongRows<Loop::kN, T, true> {
  using Base = typename Loop::template AlongRows<Loop::kN, T, true>;

 public:
  // `x` points to the group's first channel.
  __device__ WindowColumns(const T* x, const Windows& windows, unsigned pixels,
                           unsigned first_column)
      : x_(x), windows_(windows), pixels_(pixels) {
    const ConvShape& s = windows.shape;
    const unsigned channels = s.c / s.groups;
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned column = first_column + Base::row(load);
      const unsigned tap = column / channels;
      row_[load] = tap / s.s;
      column_[load] = tap % s.s;
      offset_[load] = (row_[load] * s.w + column_[load]) * s.c + column % channels;
    }
  }

  template <class Take>
  __device__ void each(unsigned first_pixel, const Take& take) const {
    const ConvShape& s = windows_.shape;
    const unsigned pixel = first_pixel + Base::k();
    unsigned n = pixel;
    const unsigned q = windows_.by_q.split(&n), p = windows_.by_p.split(&n);
    const unsigned top = p * s.stride_h - s.pad_h, left = q * s.stride_w - s.pad_w;
    const unsigned start = ((n * s.h + top) * s.w + left) * s.c;
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const bool inside = pixel < pixels_ && top + row_[load] < unsigned(s.h) &&
                          left + column_[load] < unsigned(s.w);
      take(load, x_ + (start + offset_[load]), inside);
    }
  }

 private:
  const T* x_;
  const Windows& windows_;
  unsigned pixels_;
  unsigned row_[Base::kLoads], column_[Base::kLoads], offset_[Base::kLoads];
};

// ---- what else may be done with a step ---------------------------------------------------------

struct NothingElse {
  template <class StageA>
  __device__ void operator()(const StageA&) {}
};

// Adds up the rows of A as they pass through shared memory: a thread for each row of the tile.
template <class Loop>
struct RowSums {
  static_assert(Loop::kM <= Loop::kThreads, "a thread for each row");
  bool wanted;
  float sum = 0.0f;

  template <class StageA>
  __device__ void operator()(const StageA& a) {
    if (!wanted) return;
#pragma unroll
    for (int k = 0; k < Loop::kStep; ++k) sum += a(threadIdx.x, k);
  }
};

}  // namespace convnet
