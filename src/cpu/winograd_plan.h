// How a convolution is cut for Winograd's algorithm: which of the algorithms of winograd_tiles.h, its
// tiles, and the matrix products over them.
#pragma once

#include <optional>

#include "product.h"

namespace convnet::winograd {

enum class Algorithm { kF2x3, kF3x3, kF2x5 };

// F(m x m, r x r) of winograd_tiles.h.
struct Variant {
  Algorithm algorithm;
  int m, r;
  int numbers() const { return (m + r - 1) * (m + r - 1); }
};

// One convolution as tiles: `in` channels of an image to `out` channels of another, per group.
struct Plan {
  Variant variant;
  int numbers;
  int groups, in, out;
  int tiles_h, tiles_w;
  std::int64_t tiles;
  int block;  // tiles of one matrix product
  dnnl::memory::desc left, right, result;
  std::optional<Product> wgrad;
  dnnl::matmul product;  // of fprop and dgrad, on one thread
  dnnl::memory::desc right_as_made, scratchpad;
  dnnl::reorder reorder;
  bool reordered = false;
};

// The plan of a pass of a convolution that winograd_suits().
std::shared_ptr<const Plan> plan_of(const ConvShape& shape, Pass pass);

}  // namespace convnet::winograd
