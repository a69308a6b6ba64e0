// Where windows lie on the image: shared by maxpool.cu and avgpool.cu.
#pragma once

#include "device.h"
#include "divider.cuh"
#include "ops.h"

namespace convnet {

struct PoolIndex {
  PoolShape shape;
  int channel_vectors;              // C / channels per thread
  Divider by_channels, by_q, by_p;  // from a flat index of y, last index first
  Divider by_w, by_h;               // and of x
  Divider by_stride_h, by_stride_w;
};

inline PoolIndex pool_index(const PoolShape& shape, int channels_per_thread) {
  PoolIndex index;
  index.shape = shape;
  index.channel_vectors = shape.c / channels_per_thread;
  index.by_channels = Divider(index.channel_vectors);
  index.by_q = Divider(shape.q);
  index.by_p = Divider(shape.p);
  index.by_w = Divider(shape.w);
  index.by_h = Divider(shape.h);
  index.by_stride_h = Divider(shape.stride_h);
  index.by_stride_w = Divider(shape.stride_w);
  return index;
}

struct Span {
  int begin, end;  // [begin, end)
  int start;       // where the window starts before clipping
};

// The part of window `i` that lies on the image.
__device__ inline Span window_span(int i, int stride, int pad, int size, int extent) {
  const int start = i * stride - pad;
  return {max(start, 0), min(start + size, extent), start};
}

// The windows that hold place `h` of the image: i * stride - pad <= h < i * stride - pad + size.
__device__ inline Span covering_span(int h, Divider by_stride, int pad, int size, int windows) {
  const int place = h + pad;
  const int begin =
      place < size ? 0 : static_cast<int>(by_stride.quotient(unsigned(place - size))) + 1;
  const int end = min(static_cast<int>(by_stride.quotient(unsigned(place))) + 1, windows);
  return {begin, end, 0};
}

}  // namespace convnet
