// Which kernel a convolution takes: the table of tensor-core tiles, and FFMA where those do not
// serve. In mma_plan.cu. As in conv.cuh, a plan is a function of shape and `math` alone.
#pragma once

#include <type_traits>

#include "conv.cuh"
#include "kernels/device/launch.h"
#include "mma.cuh"

namespace convnet {

// ---- tiles -------------------------------------------------------------------------------------
// "long x wide" of the result: rows are pixels in fprop and dgrad, where the long side is M; in
// wgrad it is N, and the tiles lie across. With kFp32 a warp keeps two sets of sums, so it has half
// the tile. The last number: blocks on a multiprocessor.

template <Math kMath>
struct MmaTiles {
  using Huge = MmaTile<256, 128, 64, 64, 1>;
  using Large = MmaTile<128, 128, 64, 64, 2>;
  using NinetySix = MmaTile<128, 96, 64, 32, 2>;
  using Medium = MmaTile<128, 64, 64, 32, 2>;
  using Small = MmaTile<64, 32, 32, 32, 6>;
  using Single = MmaTile<64, 32, 32, 32, 4>;  // for copies of single floats, which need registers
};
template <>
struct MmaTiles<Math::kFp32> {
  using Large = MmaTile<128, 128, 64, 32, 1>;
  using NinetySix = MmaTile<128, 96, 64, 32, 1>;
  using Medium = MmaTile<128, 64, 64, 32, 2>;
  using Small = MmaTile<64, 32, 32, 32, 4>;
  using Single = Small;
};

// In wgrad both operands are found pixel by pixel, which takes registers: with TF32, warps of 64x64
// would spill on sm_100 and sm_120, so they have half the tile there too.
template <Math kMath>
struct WgradTiles : MmaTiles<kMath> {};
template <>
struct WgradTiles<Math::kTf32> : MmaTiles<Math::kTf32> {
  using Large = MmaTile<128, 128, 64, 32, 1>;
  using Medium = MmaTile<128, 64, 64, 32, 2>;
};

template <class T>
using Across = MmaTile<T::kN, T::kM, T::kWarpN, T::kWarpM, T::kBlocks>;

// ---- plans -------------------------------------------------------------------------------------

struct MmaPlan {
  TileKind tile;
  Product product;
  unsigned splits;
  std::int64_t outputs;  // elements of the result

  std::int64_t workspace_floats(std::int64_t extra = 0) const {
    return splits == 1 ? 0 : splits * (outputs + extra);
  }
};

// The plan, cut into tiles.
template <class T>
Plan cut_for(const MmaPlan& plan) {
  const auto tiles = [](std::int64_t size, int tile) {
    return static_cast<unsigned>((size + tile - 1) / tile);
  };
  Plan cut{};
  cut.tile = plan.tile;
  cut.tiles_m = tiles(plan.product.m, T::kM);
  cut.tiles_n = tiles(plan.product.n, T::kN);
  cut.products = static_cast<unsigned>(plan.product.products);
  cut.splits = plan.splits;
  cut.outputs = plan.outputs;
  return cut;
}

// Whether the tensor-core kernels take this problem on a device that has them.
bool mma_serves(const ConvShape& shape, Pass pass, Math math);
// Whether the current device has them, and runs code that was compiled for them.
bool device_has_mma(OpName op);

// The measured choice where tuned.cuh has one, else the rule's.
MmaPlan mma_plan(const ConvShape& shape, Pass pass, Math math);
// Whether MmaTiles (in wgrad, WgradTiles) has Huge there, and the launchers a branch for it. With
// all that dgrad has to remember it would spill registers, and with TF32 in wgrad too.
bool has_huge_tiles(Pass pass, Math math);

// The steps along k of a split: [begin, end), perhaps none.
__device__ inline KRange mma_split_range(const Plan& plan, unsigned split, unsigned length) {
  const unsigned steps = (length + kMmaK - 1) / kMmaK;
  const unsigned each = (steps + plan.splits - 1) / plan.splits;
  const unsigned begin = min(split * each, steps);
  return {begin, min(begin + each, steps)};
}

// ---- few channels ------------------------------------------------------------------------------
// Three channels (conv1) are no multiple of four, but with stride 4 a window begins every 12
// floats: at a multiple of 16 bytes. So such an image is taken as one of W C columns and one
// channel, in which windows of S C columns slide by stride_w C; and 16-byte copies run along the
// columns. A filter's rows are filled up with zeros to a multiple of four (33 to 36 in conv1), and
// what these multiply is the image further right, so a NaN there would spread.

// Whether fprop and wgrad take the image so.
bool by_columns(const ConvShape& shape);
// The convolution of that image; `s` is filled up. The same where !by_columns().
ConvShape as_columns(const ConvShape& shape);
// What fprop needs for filters with filled-up rows: 0 where not by_columns().
std::int64_t filled_floats(const ConvShape& shape);
// The filters that mma_fprop() takes: w, or where by_columns() copies with filled-up rows, made at
// the beginning of the workspace, of which the rest is left. In mma_fprop.cu.
const float* mma_filters(OpName op, const ConvShape& shape, const float* w, Workspace* workspace,
                         Stream stream);

// Calls run(mode), where decltype(mode)::value is `math` as a constant.
template <class Run>
void with_math(Math math, const Run& run) {
  if (math == Math::kTf32) {
    run(std::integral_constant<Math, Math::kTf32>());
  } else if (math == Math::kBf16) {
    run(std::integral_constant<Math, Math::kBf16>());
  } else {
    run(std::integral_constant<Math, Math::kFp32>());
  }
}

// ---- launchers ---------------------------------------------------------------------------------
// As conv_fprop_as() and its like, for what mma_serves(). In mma_*.cu.

void mma_fprop(OpName op, const ConvShape& shape, Math math, const float* x, const float* filters,
               const float* b, bool relu, float* y, Workspace workspace, Stream stream,
               const DropoutRule* rule = nullptr);
void mma_dgrad(OpName op, const ConvShape& shape, Math math, const float* dy, const float* w,
               const float* relu_mask, float* dx, Workspace workspace, Stream stream);
void mma_wgrad(OpName op, const ConvShape& shape, Math math, const float* x, const float* dy,
               float* dw, float* db, Workspace workspace, Stream stream);

}  // namespace convnet
