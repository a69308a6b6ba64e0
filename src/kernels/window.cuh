// Where windows lie along one axis of the image: for pools and locally connected layers.
#pragma once

#include "fast_divmod.cuh"

namespace convnet {

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
__device__ inline Span covering_span(int h, const FastDivmod& by_stride, int pad, int size,
                                     int windows) {
  const int place = h + pad;
  const int begin =
      place < size ? 0 : static_cast<int>(by_stride.quotient(unsigned(place - size))) + 1;
  const int end = min(static_cast<int>(by_stride.quotient(unsigned(place))) + 1, windows);
  return {begin, end, 0};
}

}  // namespace convnet
