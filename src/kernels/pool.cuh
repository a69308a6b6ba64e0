// From thread numbers to places in x and y: shared by maxpool.cu and avgpool.cu.
#pragma once

#include "fast_divmod.cuh"
#include "ops.h"
#include "window.cuh"

namespace convnet {

struct PoolIndex {
  PoolShape shape;
  int channel_vectors;                 // C / channels per thread
  FastDivmod by_channels, by_q, by_p;  // from a flat index of y, last index first
  FastDivmod by_w, by_h;               // and of x
  FastDivmod by_stride_h, by_stride_w;
};

inline PoolIndex pool_index(const PoolShape& shape, int channels_per_thread) {
  PoolIndex index;
  index.shape = shape;
  index.channel_vectors = shape.c / channels_per_thread;
  index.by_channels = FastDivmod(index.channel_vectors);
  index.by_q = FastDivmod(shape.q);
  index.by_p = FastDivmod(shape.p);
  index.by_w = FastDivmod(shape.w);
  index.by_h = FastDivmod(shape.h);
  index.by_stride_h = FastDivmod(shape.stride_h);
  index.by_stride_w = FastDivmod(shape.stride_w);
  return index;
}

}  // namespace convnet
