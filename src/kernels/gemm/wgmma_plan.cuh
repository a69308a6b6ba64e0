// Which convolutions the Hopper kernels can do, and how these are cut into tiles: the part of a
// plan (plan.cuh) that slabs decide. In wgmma_plan.cu.
//
// wgmma_conv.cu computes convolutions of stride 1 forward. dgrad of stride 1 is one too: dy takes
// the picture's place, and the filters are transposed and turned around. So all here is said of the
// forward convolution that a pass is: as_forward(). wgmma_wgrad.cu is the gradient of the filters.
#pragma once

#include "ops.h"

namespace convnet {

constexpr int kPieceK = 16;  // channels of a piece of wgrad
constexpr int kTilePixels[] = {128, 256};
constexpr int kTileFilters[] = {48, 64, 96, 128};

// The convolution forward that `pass` is; the same for wgrad.
ConvShape as_forward(const ConvShape& shape, Pass pass);

struct WgmmaPlan {
  int pixels, filters;        // of a tile: of kTilePixels and kTileFilters
  int channels, pixel_bytes;  // of a slab's pixel: as many channels as a step has
  unsigned tiles_m, tiles_n;  // of a group
  unsigned slab_pixels;       // from one row of a slab to the next
  unsigned slab_rows;         // at most
  std::int64_t filter_bytes;  // of all filters as the kernel wants them
  unsigned tiles(int groups) const { return tiles_m * tiles_n * static_cast<unsigned>(groups); }
  unsigned slab_bytes() const { return slab_rows * slab_pixels * unsigned(pixel_bytes); }
};

// Bytes of shared memory that a ring of filters may take, and its most stages.
constexpr int kFilterRingBytes = 96 * 1024, kMostFilterStages = 12;

// Of wgrad: filters of a tile; pieces of a tap and 16 channels that a warp may have, of which four
// warps make a wgmma; stages of the ring.
constexpr int kWgradFilters = 64, kWgradPieces = 4, kWgradStages = 12;
constexpr int kWgradRowBytes = 64;  // of a filter in a stage: 16 pixels of float32, or 32

struct WgmmaWgradPlan {
  WgmmaPlan slab;             // `pixels` at a time, kPieceK channels
  unsigned sixteens;          // of channels in a tile
  unsigned tiles_c, tiles_k;  // of a group
  unsigned splits, each;      // slabs of a split
  unsigned bias_sums;         // of db: threads that share a filter, in all splits
  std::int64_t outputs;       // of dw
  std::int64_t partial_floats() const { return splits == 1 ? 0 : splits * outputs; }
  // The sums of db too.
  std::int64_t workspace_floats(std::int64_t filters) const {
    return partial_floats() + std::int64_t{bias_sums} * filters;
  }
};

// Whether a kernel can do it: products of bfloat16 arrays in bf16, of float32 arrays in fp32 and
// tf32; stride 1, channels (in dgrad: filters) of a group in sixteens, those of the result in fours
// (in wgrad of bfloat16 an even number), and slabs that fit into shared memory; wgrad not in fp32,
// which would need twice the registers.
bool wgmma_serves(const ConvShape& shape, Pass pass, Precision precision);
// Of what it serves: of fprop and dgrad, and of wgrad.
WgmmaPlan wgmma_plan(const ConvShape& shape, Pass pass, Precision precision);
WgmmaWgradPlan wgmma_wgrad_plan(const ConvShape& shape);

}  // namespace convnet
