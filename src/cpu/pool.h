// Where windows lie along one axis: shared by maxpool.cpp and avgpool.cpp.
#pragma once

#include <algorithm>

#include "simd.h"

namespace convnet {

struct Span {
  int begin, end;  // [begin, end)
  int start;       // where the window starts before clipping
};

// The part of window `i` that lies on the image.
CONVNET_INLINE Span window_span(int i, int stride, int pad, int size, int extent) {
  const int start = i * stride - pad;
  const int begin = start > 0 ? start : 0;
  const int end = start + size < extent ? start + size : extent;
  return {begin, end, start};
}

// The windows that hold place `h` of the image: i * stride - pad <= h < i * stride - pad + size.
CONVNET_INLINE Span covering_span(int h, int stride, int pad, int size, int windows) {
  const int place = h + pad;
  const int begin = place < size ? 0 : (place - size) / stride + 1;
  const int end = place / stride + 1 < windows ? place / stride + 1 : windows;
  return {begin, end, 0};
}

}  // namespace convnet
