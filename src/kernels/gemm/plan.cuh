// Which kernel a convolution or a dense layer takes, and how it is cut into tiles.
//
// A layer's pass is a product, C[m, n] = sum_k A[m, k] B[n, k], and there are three main loops for
// products. The first of these rows that holds is taken (choose_loop() in plan.cu):
//
//   main loop  takes
//   wgmma      sm_90a; float32 arrays in fp32 (not wgrad) and tf32, bfloat16 arrays in bf16; stride 1;
//              channels of a group in sixteens; aligned arrays; slabs that fit (wgmma_plan.cuh); work
//              for all multiprocessors
//   mma        sm_80 and up; fp32, tf32, bf16; sums of 32 products or more; of bfloat16 arrays in
//              bf16 alone (mma_bf16.cuh), channels of a group in fours, aligned arrays
//   simt       everything; in ffma nothing else does
//
// Tiles and splits follow from shape and precision alone, so a result has the same bits on every
// device that takes the same loop, and a workspace can be asked for before there is any array.
// conv_kernel() of ops.h says what a plan is in words.
#pragma once

#include <string>
#include <utility>

#include "kernels/device/launch.h"
#include "ops.h"
#include "wgmma_plan.cuh"

namespace convnet {

enum class MainLoop { kSimt, kMma, kWgmma };

// "long x wide" of the result; tiles.cuh has them.
enum class TileKind { kHuge, kLarge, kNinetySix, kMedium, kSmall };
constexpr std::pair<TileKind, const char*> kTileNames[] = {{TileKind::kHuge, "256x128"},
                                                           {TileKind::kLarge, "128x128"},
                                                           {TileKind::kNinetySix, "128x96"},
                                                           {TileKind::kMedium, "128x64"},
                                                           {TileKind::kSmall, "64x32"}};

// C[m, n] = sum_k A[m, k] B[n, k], `products` of them side by side.
struct Product {
  std::int64_t m, n, k;
  std::int64_t products;  // groups; in dgrad times the classes of pixels
};

struct GemmPlan {
  MainLoop loop;
  Pass pass;
  Precision precision;
  ConvShape shape;       // as the main loop takes it: with mma perhaps as_columns()
  std::int64_t outputs;  // elements of the result
  std::int64_t biases;   // of db, in wgrad; else 0
  // simt and mma:
  Product product;
  TileKind tile;
  unsigned splits;
  bool columns;         // `shape` is as_columns()
  unsigned row_floats;  // of a row of a filter in memory, in a group
  // wgmma, of fprop and dgrad, and of wgrad:
  WgmmaPlan wgmma;
  WgmmaWgradPlan wgmma_wgrad;

  // Floats of the filters whose rows are filled up.
  std::int64_t filled_filters() const {
    return columns && pass == Pass::kFprop ? count(w_dims(shape)) : 0;
  }
  std::int64_t split_floats() const { return splits <= 1 ? 0 : splits * (outputs + biases); }
  std::int64_t workspace_floats() const;
  std::int64_t prepared_bytes() const;  // of the filters that prepare_filters() makes, or 0
  std::string text() const;             // "mma.sync, 128x64, 3 splits"
};

// What takes a pass on the current device. `aligned`: the arrays that wgmma reads and writes (x or
// dy, the result and the mask) are, to 16 bytes; with bfloat16 arrays all of them. Throws
// std::invalid_argument when CONVNET_WGMMA is none of auto, off (no wgmma) and always (wherever it
// can be).
GemmPlan gemm_plan(OpName op, const ConvShape& shape, Pass pass, Precision precision,
                   bool aligned = true);
// The plan of a main loop, which must serve the pass.
GemmPlan plan_with(MainLoop loop, const ConvShape& shape, Pass pass, Precision precision);
// Whether a main loop can form the product, on a device that has it.
bool serves(MainLoop loop, const ConvShape& shape, Pass pass, Precision precision);

// Whether there are tiles of 256x128. With all that dgrad has to remember they would spill
// registers, and with TF32 in wgrad too.
constexpr bool has_huge_tiles(Pass pass, Precision precision) {
  return pass == Pass::kFprop ? precision != Precision::kFp32
                              : pass == Pass::kWgrad && precision == Precision::kBf16;
}

// Classes of pixels that dgrad takes apart; see dgrad.cu.
inline int class_count(int stride, int extent) { return stride < extent ? stride : extent; }

// ---- few channels ------------------------------------------------------------------------------
// Three channels (conv1) are no multiple of four, but with stride 4 a window begins every 12
// floats: at a multiple of 16 bytes. So such an image is taken as one of W C columns and one
// channel, in which windows of S C columns slide by stride_w C; and 16-byte copies run along the
// columns. A filter's rows are filled up with zeros to a multiple of four (33 to 36 in conv1), and
// what these multiply is the image further right, so a NaN there would spread.

// Whether fprop and wgrad on tensor cores take the image so.
bool by_columns(const ConvShape& shape);
// The convolution of that image; `s` is filled up. The same where !by_columns().
ConvShape as_columns(const ConvShape& shape);

}  // namespace convnet
