// Rows of a max-pool on the calling thread: what maxpool.cpp and lrn_maxpool.cpp share.
#pragma once

#include "vectors.h"

namespace convnet {

// One row of outputs: y and argmax [Q, C].
template <class T>
void maxpool_fprop_row(const PoolRun<T>& run, T* y, std::uint8_t* argmax);

// Some pixels of one row of the image: dx [end - begin, C].
template <class T>
void maxpool_bprop_pixels(const GatherRun<T>& run, T* dx);

}  // namespace convnet
