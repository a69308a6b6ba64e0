// Rows of a max-pool on the calling thread: what maxpool.cpp and lrn_maxpool.cpp share.
#pragma once

#include "vectors.h"

namespace convnet {

// One row of outputs: y and argmax [Q, C].
void maxpool_fprop_row(const PoolRun& run, float* y, std::uint8_t* argmax);

// Some pixels of one row of the image: dx [end - begin, C].
void maxpool_bprop_pixels(const GatherRun& run, float* dx);

}  // namespace convnet
