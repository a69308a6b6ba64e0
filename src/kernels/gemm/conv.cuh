// How the three passes of a convolution are cut into tiles, and their launchers under any name:
// dense.cu runs them as convolutions of one pixel.
//
// A plan is a function of the shape alone. So a result has the same bits on every device, the
// number of splits included, and a workspace can be asked for before there is any array.
#pragma once

#include "epilogue.cuh"
#include "kernels/device/launch.h"
#include "ops.h"

namespace convnet {

// For FFMA, kLarge is LargeTile; kMedium and kSmall are MediumTile and NarrowTile, in wgrad
// MediumWideTile and WideTile. For tensor cores see MmaTiles.
enum class TileKind { kHuge, kLarge, kNinetySix, kMedium, kSmall };

// C[m, n] = sum_k A[m, k] B[n, k], `products` of them side by side.
struct Product {
  std::int64_t m, n, k;
  std::int64_t products;  // groups; in dgrad times the classes of pixels
};

struct Plan {
  TileKind tile;
  unsigned tiles_m, tiles_n, products, splits;
  std::int64_t outputs;  // elements of the result

  dim3 grid() const { return dim3(tiles_m * tiles_n * products * splits); }
  std::int64_t workspace_floats(std::int64_t extra = 0) const {
    return splits == 1 ? 0 : splits * (outputs + extra);
  }
};

// A block's part of the plan. Blocks that read the same rows of A run at the same time, and those
// of one split before those of the next.
struct TileCoord {
  unsigned tile_m, tile_n, product, split;
};
__device__ inline TileCoord block_coord(const Plan& plan) {
  unsigned rest = blockIdx.x;
  TileCoord coord;
  coord.tile_n = rest % plan.tiles_n;
  rest /= plan.tiles_n;
  coord.tile_m = rest % plan.tiles_m;
  rest /= plan.tiles_m;
  coord.product = rest % plan.products;
  coord.split = rest / plan.products;
  return coord;
}

// The steps along k of a split: [begin, end), perhaps none.
struct KRange {
  unsigned begin, end;
};
__device__ inline KRange split_range(const Plan& plan, unsigned split, unsigned length) {
  const unsigned steps = (length + kTileK - 1) / kTileK;
  const unsigned each = (steps + plan.splits - 1) / plan.splits;
  const unsigned begin = min(split * each, steps);
  return {begin, min(begin + each, steps)};
}

// In conv.cu. conv_plan() is the plan of the FFMA kernels.
Product conv_product(const ConvShape& shape, Pass pass);
std::int64_t conv_outputs(const ConvShape& shape, Pass pass);  // elements of the result
Plan conv_plan(const ConvShape& shape, Pass pass);
// Room for so many floats in the workspace, aligned to 16 bytes; null for none. Throws
// std::invalid_argument when it is too small.
float* partials_in(OpName op, std::int64_t floats, Workspace workspace);

// Classes of pixels that dgrad takes apart; see conv_dgrad.cu.
inline int class_count(int stride, int extent) { return stride < extent ? stride : extent; }

// A dense layer as the convolution that it is. In dense.cu.
ConvShape as_convolution(const DenseShape& dense);

// conv_fprop() and its like, with the name that errors begin with. `rule`: dropout of y, for dense
// layers; else null.
void conv_fprop_as(OpName op, const ConvShape& shape, Math math, const float* x, const float* w,
                   const float* b, bool relu, float* y, Workspace workspace, Stream stream,
                   const DropoutRule* rule = nullptr);
void conv_dgrad_as(OpName op, const ConvShape& shape, Math math, const float* dy, const float* w,
                   const float* relu_mask, float* dx, Workspace workspace, Stream stream);
void conv_wgrad_as(OpName op, const ConvShape& shape, Math math, const float* x, const float* dy,
                   float* dw, float* db, Workspace workspace, Stream stream);

}  // namespace convnet
