// Kernels over explicit vectors: for the loops that the compiler does not vectorise well.
//
// vector_kernels.h holds them, written once over a vector type of any length; vector_kernels.cpp
// compiles it for each instruction set, and kernels_for() picks one when it is called. So there is
// no -march, as with vectorized<> (simd.h), which serves where a plain loop is fast.
#pragma once

#include <cstdint>

#include "ops.h"

namespace convnet {

// Rows of `channels` floats, one group of channels after the other, that LRN treats apart.
struct LrnRun {
  float k, alpha, beta_factor;  // beta_factor = 2 alpha beta, of the backward pass
  int channels;                 // per group
  bool relu_mask;               // dx = 0 where x <= 0
  bool stream;                  // write around the cache: the output is larger than it
};

// One row of outputs of a max-pool. rows[i] is where row `first_row + i` of the image starts.
template <class T>
struct PoolRun {
  const PoolShape* shape;
  int p;
  const T* const* rows;
};

// Pixels [begin, end) of row h of the image, from dy and argmax of the whole image. dx is that of
// pixel `begin`.
template <class T>
struct GatherRun {
  const PoolShape* shape;
  int h, begin, end;
  const T* dy;
  const std::uint8_t* argmax;
};

// All of them for beta = 3/4 and a window of `n` channels, 3 or 5.
template <class T>
struct VectorKernels {
  int lanes;  // numbers in a vector, which are float32 in registers
  void (*lrn_fprop)(const LrnRun& run, int n, std::int64_t rows, const T* x, T* y);
  void (*lrn_bprop)(const LrnRun& run, int n, std::int64_t rows, const T* x, const T* dy, T* dx);
  void (*maxpool_fprop)(const PoolRun<T>& run, T* y, std::uint8_t* argmax);
  void (*maxpool_bprop)(const GatherRun<T>& run, T* dx);
};

// The kernels with the longest vectors that vector_isa() allows and that fit: whole ones into
// `channels` where `whole`, else at least one. Null where there are none; the caller has a loop of
// its own for that.
template <class T>
const VectorKernels<T>* kernels_for(int channels, bool whole);

}  // namespace convnet
