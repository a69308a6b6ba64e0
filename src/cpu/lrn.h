// LRN of some pixels on the calling thread: what lrn.cpp and lrn_maxpool.cpp share.
#pragma once

#include <vector>

#include "ops.h"
#include "vectors.h"

namespace convnet {

// Tensors of more bytes than this do not stay in a cache until they are read: they are written
// around it, which spares reading them first.
constexpr std::int64_t kCacheBytes = 32 << 20;

// Where things are in a line (lrn.cpp): channel c of group g of the block's pixel m has its window
// sum at (m * groups + g) * step + c.
struct LrnLine {
  int channels, groups;         // channels per group
  int left, right, window;      // the window, no wider than the group needs
  std::int64_t step;            // floats from one group to the next
  std::int64_t pixels, length;  // pixels per block, floats of the sums of a block
  std::int64_t storage() const { return length + window; }  // with the zeros
};

// Pixels are independent of each other: how many are given at a time changes no bit.
template <class T>
class LrnPixels {
 public:
  // stream: results go around the cache, where that can be.
  explicit LrnPixels(const LrnShape& shape, bool stream = false);

  void fprop(std::int64_t pixels, const T* x, T* y) const;
  // relu_mask: dx = 0 where x <= 0.
  void bprop(std::int64_t pixels, const T* x, const T* dy, bool relu_mask, T* dx) const;

 private:
  LrnShape shape_;
  LrnRun run_;
  const VectorKernels<T>* kernels_;  // or null: by lines
  LrnLine line_;
  // Zero-filled arrays of line_.storage() floats. The zeros between groups are never written to.
  mutable std::vector<float> memory_;
};

}  // namespace convnet
