// What maxpool.cpp and avgpool.cpp share: where windows lie along one axis, and the loop over
// channels.
#pragma once

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

template <int kBlock, class Pixel>
CONVNET_INLINE void channel_blocks(int channels, const Pixel& pixel) {
  for (int c = 0; c + kBlock <= channels; c += kBlock) pixel.template run<kBlock>(c);
  // The last block overlaps the one before: the same result is written twice.
  if (channels % kBlock != 0) pixel.template run<kBlock>(channels - kBlock);
}

// pixel.run<kBlock>(c) makes channels c .. c + kBlock - 1 of one output pixel, with kBlock results
// in registers while it goes over the window. Here for all channels.
template <class Pixel>
CONVNET_INLINE void for_channels(int channels, const Pixel& pixel) {
  if (channels >= 16) {
    channel_blocks<16>(channels, pixel);
  } else if (channels >= 4) {
    channel_blocks<4>(channels, pixel);
  } else {
    channel_blocks<1>(channels, pixel);
  }
}

}  // namespace convnet
