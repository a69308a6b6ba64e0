// What the kernels of conv_dgrad.cu and mma_dgrad.cu share: the classes of pixels, explained in
// conv_dgrad.cu.
#pragma once

#include "conv.cuh"
#include "gather.cuh"

namespace convnet {

// One axis of a class of pixels.
struct Axis {
  unsigned first, count;  // pixels first + stride i, i < count
  unsigned first_tap, taps,
      place;  // taps first_tap + stride t; tap 0 of pixel 0 is at `place` of dy
};

__device__ inline Axis class_axis(unsigned a, unsigned stride, unsigned pad, unsigned extent,
                                  unsigned filter) {
  Axis axis;
  axis.first = a;
  axis.count = (extent - a + stride - 1) / stride;
  axis.first_tap = (a + pad) % stride;
  axis.taps = axis.first_tap < filter ? (filter - axis.first_tap + stride - 1) / stride : 0;
  axis.place = (a + pad) / stride;
  return axis;
}

struct DgradParameters {
  Plan plan;
  ConvShape shape;
  Taps taps;  // of dy, but for what depends on the class: `length` and `by_width`
  unsigned classes_w, classes;
  unsigned most_taps_w;        // taps in a row: so many,
  FastDivmod by_fewer_taps_w;  // or in some classes one less
  Epilogue epilogue;
  bool vector_out;
};

// All but the plan and the epilogue.
inline DgradParameters dgrad_parameters(const ConvShape& shape) {
  DgradParameters parameters{};
  parameters.shape = shape;
  parameters.taps.height = shape.p;
  parameters.taps.width = shape.q;
  parameters.taps.pitch = shape.k;
  parameters.taps.by_channels = FastDivmod(shape.k / shape.groups);
  parameters.classes_w = class_count(shape.stride_w, shape.w);
  parameters.classes = class_count(shape.stride_h, shape.h) * parameters.classes_w;
  const int most = (shape.s + shape.stride_w - 1) / shape.stride_w;
  parameters.most_taps_w = most;
  parameters.taps.by_width = FastDivmod(most);
  parameters.by_fewer_taps_w = FastDivmod(most > 1 ? most - 1 : 1);
  return parameters;
}

}  // namespace convnet
