// Which convolutions the Hopper kernel of wgmma_conv.cu takes, and how it is cut into tiles. In
// wgmma_plan.cu.
//
// That kernel computes convolutions of stride 1 forward. dgrad of stride 1 is one too: dy takes the
// picture's place, and the filters are transposed and turned around. So all here is said of the
// forward convolution that a pass is: as_forward().
#pragma once

#include "conv.cuh"

namespace convnet {

constexpr int kSlabK = 16;       // channels of a slab, and of a step
constexpr int kPixelBytes = 64;  // of those in shared memory
constexpr int kTilePixels[] = {128, 256};
constexpr int kTileFilters[] = {48, 64, 96, 128};

// The convolution forward that `pass` is.
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

// Whether the kernel can do it: stride 1, channels (in dgrad: filters) of a group in sixteens, and
// slabs that fit into shared memory.
bool wgmma_serves(const ConvShape& shape, Pass pass, Math math);
// Whether it should: the device has it, the arrays are aligned, there is work for all
// multiprocessors, or mma_tuned.cuh says so. CONVNET_WGMMA=off|always overrules the last. Throws
// std::invalid_argument when that says something else.
bool wgmma_takes(OpName op, const ConvShape& shape, Pass pass, Math math, const float* image);

// Of what it serves.
WgmmaPlan wgmma_plan(const ConvShape& shape, Pass pass, Math math);

// Both: `image` is x or dy, `out` y or dx. In wgmma_conv.cu.
void wgmma_conv(OpName op, const ConvShape& shape, Pass pass, Math math, const float* image,
                const float* w, const Epilogue& epilogue, float* out, Workspace workspace,
                Stream stream);

}  // namespace convnet
