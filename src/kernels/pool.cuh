// From thread numbers to places in x and y: shared by maxpool.cu and avgpool.cu.
#pragma once

#include "divider.cuh"
#include "ops.h"
#include "window.cuh"

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

}  // namespace convnet
