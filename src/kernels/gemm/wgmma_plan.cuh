// Which convolutions the Hopper kernels can do, and how these are cut into tiles: the part of a
// plan (plan.cuh) that slabs decide. In wgmma_plan.cu.
//
// wgmma_conv.cu computes convolutions of stride 1 forward. dgrad of stride 1 is one too: dy takes
// the picture's place, and the filters are transposed and turned around. So all here is said of the
// forward convolution that a pass is: as_forward(). wgmma_wgrad.cu is the gradient of the filters.
#pragma once

#include "ops.h"

namespace convnet {

constexpr int kSlabK = 16;       // channels of a slab, and of a step
constexpr int kPixelBytes = 64;  // of those in shared memory
constexpr int kTilePixels[] = {128, 256};
constexpr int kTileFilters[] = {48, 64, 96, 128};

// The convolution forward that `pass` is; the same for wgrad.
ConvShape as_forward(const ConvShape& shape, Pass pass);

struct WgmmaPlan {
  int pixels, filters;        // of a tile: of kTilePixels and kTileFilters
  unsigned tiles_m, tiles_n;  // of a group
  unsigned slab_pixels;       // from one row of a slab to the next
  unsigned slab_rows;         // at most
  std::int64_t filter_bytes;  // of all filters as the kernel wants them
  unsigned tiles(int groups) const { return tiles_m * tiles_n * static_cast<unsigned>(groups); }
  unsigned slab_bytes() const { return slab_rows * slab_pixels * kPixelBytes; }
};

// Bytes of shared memory that a ring of filters may take, and its most stages.
constexpr int kFilterRingBytes = 96 * 1024, kMostFilterStages = 12;

// Of wgrad: filters of a tile; pieces of a tap and 16 channels that a warp may have, of which four
// warps make a wgmma; stages of the ring.
constexpr int kWgradFilters = 64, kWgradPieces = 4, kWgradStages = 12;

struct WgmmaWgradPlan {
  WgmmaPlan slab;             // `pixels` at a time, 16 channels
  unsigned sixteens;          // of channels in a tile
  unsigned tiles_c, tiles_k;  // of a group
  unsigned splits, each;      // slabs of a split
  std::int64_t outputs;       // of dw
  std::int64_t partial_floats() const { return splits == 1 ? 0 : splits * outputs; }
  // The sums of db too: two for each split.
  std::int64_t workspace_floats(std::int64_t filters) const {
    return partial_floats() + 2 * std::int64_t{splits} * filters;
  }
};

// Whether a kernel can do it: stride 1, channels (in dgrad: filters) of a group in sixteens, those
// of the result in fours, and slabs that fit into shared memory; wgrad not in fp32, which would
// need twice the registers.
bool wgmma_serves(const ConvShape& shape, Pass pass, Precision precision);
// Of what it serves: of fprop and dgrad, and of wgrad.
WgmmaPlan wgmma_plan(const ConvShape& shape, Pass pass, Precision precision);
WgmmaWgradPlan wgmma_wgrad_plan(const ConvShape& shape, Precision precision);

}  // namespace convnet
