// The tiles of the main loops simt and mma, and how the blocks of a grid share a product.
#pragma once

#include <type_traits>

#include "mma.cuh"
#include "mma_bf16.cuh"
#include "plan.cuh"
#include "simt.cuh"

namespace convnet {

// ---- tiles -------------------------------------------------------------------------------------
// "long x wide" of the result: rows are pixels in fprop and dgrad, where the long side is M; in
// wgrad it is N, and the tiles lie across.

struct SimtTiles {
  using Large = Tile<128, 128, 8>;
  using Medium = Tile<128, 64, 8>;
  using Small = Tile<64, 32, 4>;
};

// The tile, the tile of a warp, and blocks on a multiprocessor. With kFp32 a warp keeps two sets of
// sums, so it has half the tile.
template <Pass kPass, Precision kPrecision>
struct MmaTiles {
  using Huge = MmaTile<256, 128, 64, 64, 1>;
  using Large = MmaTile<128, 128, 64, 64, 2>;
  using NinetySix = MmaTile<128, 96, 64, 32, 2>;
  using Medium = MmaTile<128, 64, 64, 32, 2>;
  using Small = MmaTile<64, 32, 32, 32, 6>;
  using Single = MmaTile<64, 32, 32, 32, 4>;  // for copies of single floats, which need registers
};
template <Pass kPass>
struct MmaTiles<kPass, Precision::kFp32> {
  using Large = MmaTile<128, 128, 64, 32, 1>;
  using NinetySix = MmaTile<128, 96, 64, 32, 1>;
  using Medium = MmaTile<128, 64, 64, 32, 2>;
  using Small = MmaTile<64, 32, 32, 32, 4>;
  using Single = Small;
};
// In wgrad both operands are found pixel by pixel, which takes registers: with TF32, warps of 64x64
// would spill on sm_100 and sm_120, so they have half the tile there too.
template <>
struct MmaTiles<Pass::kWgrad, Precision::kTf32> : MmaTiles<Pass::kFprop, Precision::kTf32> {
  using Large = MmaTile<128, 128, 64, 32, 1>;
  using Medium = MmaTile<128, 64, 64, 32, 2>;
};

// Of bfloat16 arrays. Narrow: for copies of four, as Single, and conv1's filters.
template <Pass kPass>
struct Bf16Tiles : MmaTiles<kPass, Precision::kBf16> {
  using Narrow = MmaTile<128, 96, 64, 32, 2>;
};
// Warps of 64x64 would spill on sm_100, with what dgrad has to remember.
template <>
struct Bf16Tiles<Pass::kDgrad> : MmaTiles<Pass::kDgrad, Precision::kBf16> {
  using Large = MmaTile<128, 128, 64, 32, 1>;
  using Narrow = NinetySix;
};
template <>
struct Bf16Tiles<Pass::kWgrad> : MmaTiles<Pass::kWgrad, Precision::kBf16> {
  using Narrow = MmaTile<128, 96, 64, 32, 1>;
};

template <class T>
struct AcrossOf;
template <int kM, int kN, int kThreadN>
struct AcrossOf<Tile<kM, kN, kThreadN>> {
  using Type = Tile<kN, kM, kThreadN>;
};
template <int kM, int kN, int kWarpM, int kWarpN, int kBlocks>
struct AcrossOf<MmaTile<kM, kN, kWarpM, kWarpN, kBlocks>> {
  using Type = MmaTile<kN, kM, kWarpN, kWarpM, kBlocks>;
};
template <class T>
using Across = typename AcrossOf<T>::Type;

// ---- dispatch ----------------------------------------------------------------------------------

// Calls run(mode), where decltype(mode)::value is `precision` as a constant.
template <class Run>
void with_precision(Precision precision, const Run& run) {
  if (precision == Precision::kTf32) {
    run(std::integral_constant<Precision, Precision::kTf32>());
  } else if (precision == Precision::kBf16) {
    run(std::integral_constant<Precision, Precision::kBf16>());
  } else {
    run(std::integral_constant<Precision, Precision::kFp32>());
  }
}

template <Pass kPass, class Run>
void with_simt_loop(TileKind tile, bool vector, const Run& run) {
  const auto with = [&](auto along) {
    using T = std::conditional_t<kPass == Pass::kWgrad, Across<decltype(along)>, decltype(along)>;
    if (vector) {
      run(SimtLoop<T, true>());
    } else {
      run(SimtLoop<T, false>());
    }
  };
  if (tile == TileKind::kLarge) {
    with(SimtTiles::Large());
  } else if (tile == TileKind::kMedium) {
    with(SimtTiles::Medium());
  } else {
    with(SimtTiles::Small());
  }
}

// Single copies have one tile only.
template <Pass kPass, Precision kPrecision, class Run>
void with_mma_loop(TileKind tile, bool vector, const Run& run) {
  using Tiles = MmaTiles<kPass, kPrecision>;
  const auto with = [&](auto along, auto wide) {
    using T = std::conditional_t<kPass == Pass::kWgrad, Across<decltype(along)>, decltype(along)>;
    run(MmaLoop<T, kPrecision, decltype(wide)::value>());
  };
  constexpr std::true_type kWide;
  if (!vector) {
    with(typename Tiles::Single(), std::false_type());
  } else if (tile == TileKind::kSmall) {
    with(typename Tiles::Small(), kWide);
  } else if (tile == TileKind::kMedium) {
    with(typename Tiles::Medium(), kWide);
  } else if (tile == TileKind::kNinetySix) {
    with(typename Tiles::NinetySix(), kWide);
  } else if constexpr (!has_huge_tiles(kPass, kPrecision)) {
    with(typename Tiles::Large(), kWide);
  } else if (tile == TileKind::kLarge) {
    with(typename Tiles::Large(), kWide);
  } else {
    with(typename Tiles::Huge(), kWide);
  }
}

// The same of activations that are bfloat16: `vector`, 8 of them are copied at a time. Copies of 4
// are for few channels (conv1), and have the tile for its filters and a small one.
template <Pass kPass, class Run>
void with_bf16_loop(TileKind tile, bool vector, const Run& run) {
  using Tiles = Bf16Tiles<kPass>;
  const auto with = [&](auto along, auto wide) {
    using T = std::conditional_t<kPass == Pass::kWgrad, Across<decltype(along)>, decltype(along)>;
    run(MmaBf16Loop<T, decltype(wide)::value, kPass != Pass::kWgrad>());
  };
  constexpr std::true_type kWide;
  constexpr std::false_type kNarrow;
  if (!vector && tile == TileKind::kNinetySix) {
    with(typename Tiles::Narrow(), kNarrow);
  } else if (!vector) {
    with(typename Tiles::Single(), kNarrow);
  } else if (tile == TileKind::kSmall) {
    with(typename Tiles::Small(), kWide);
  } else if (tile == TileKind::kMedium) {
    with(typename Tiles::Medium(), kWide);
  } else if (tile == TileKind::kNinetySix) {
    with(typename Tiles::NinetySix(), kWide);
  } else if constexpr (!has_huge_tiles(kPass, Precision::kBf16)) {
    with(typename Tiles::Large(), kWide);
  } else if (tile == TileKind::kLarge) {
    with(typename Tiles::Large(), kWide);
  } else {
    with(typename Tiles::Huge(), kWide);
  }
}

// Elements of T that `vector` loops move at a time.
template <class T>
int vector_width(const GemmPlan& plan) {
  return plan.loop == MainLoop::kMma && storage_of<T> == Storage::kBfloat16 ? 8 : 4;
}

// Calls run(loop) with the SimtLoop, MmaLoop or MmaBf16Loop of the plan's tile, for the plan's pass,
// kPass, and activations of T. `vector`: they may be read vector_width() at a time.
template <Pass kPass, class T, class Run>
void with_loop(const GemmPlan& plan, bool vector, const Run& run) {
  if (plan.loop == MainLoop::kSimt) {
    with_simt_loop<kPass>(plan.tile, vector, run);
  } else if constexpr (storage_of<T> == Storage::kBfloat16) {
    with_bf16_loop<kPass>(plan.tile, vector, run);
  } else {
    with_precision(plan.precision, [&](auto mode) {
      with_mma_loop<kPass, decltype(mode)::value>(plan.tile, vector, run);
    });
  }
}

// Of the plan's tile, where operands are read 16 bytes at a time.
struct TileSize {
  std::int64_t m, n, step, threads, blocks;  // the last: on a multiprocessor
};
template <Pass kPass, class T>
TileSize tile_size_of(const GemmPlan& plan) {
  TileSize size{};
  with_loop<kPass, T>(plan, true, [&](auto loop) {
    using Loop = decltype(loop);
    size = {Loop::kM, Loop::kN, Loop::kStep, Loop::kThreads, Loop::kBlocks};
  });
  return size;
}
template <class T>
TileSize tile_size_of(const GemmPlan& plan) {
  if (plan.pass == Pass::kFprop) return tile_size_of<Pass::kFprop, T>(plan);
  if (plan.pass == Pass::kDgrad) return tile_size_of<Pass::kDgrad, T>(plan);
  return tile_size_of<Pass::kWgrad, T>(plan);
}
inline TileSize tile_size(const GemmPlan& plan) {
  return plan.shape.storage == Storage::kBfloat16 ? tile_size_of<Bfloat16>(plan)
                                                  : tile_size_of<float>(plan);
}

// ---- the grid ----------------------------------------------------------------------------------

struct TileGrid {
  unsigned tiles_m, tiles_n, products, splits;
  std::int64_t outputs;  // of a split

  dim3 blocks() const { return dim3(tiles_m * tiles_n * products * splits); }
};

template <class Loop>
TileGrid grid_of(const GemmPlan& plan) {
  const auto tiles = [](std::int64_t size, int tile) {
    return static_cast<unsigned>((size + tile - 1) / tile);
  };
  return {tiles(plan.product.m, Loop::kM), tiles(plan.product.n, Loop::kN),
          static_cast<unsigned>(plan.product.products), plan.splits, plan.outputs};
}

// A block's part of the grid. Blocks that read the same rows of A run at the same time, and those
// of one split before those of the next.
struct TileCoord {
  unsigned tile_m, tile_n, product, split;
};
__device__ inline TileCoord block_coord(const TileGrid& grid) {
  unsigned rest = blockIdx.x;
  TileCoord coord;
  coord.tile_n = rest % grid.tiles_n;
  rest /= grid.tiles_n;
  coord.tile_m = rest % grid.tiles_m;
  rest /= grid.tiles_m;
  coord.product = rest % grid.products;
  coord.split = rest / grid.products;
  return coord;
}

// The steps along k of a split: [begin, end), perhaps none.
struct KRange {
  unsigned begin, end;
};
template <class Loop>
__device__ inline KRange split_range(const TileGrid& grid, unsigned split, unsigned length) {
  const unsigned steps = (length + Loop::kStep - 1) / Loop::kStep;
  const unsigned each = (steps + grid.splits - 1) / grid.splits;
  const unsigned begin = min(split * each, steps);
  return {begin, min(begin + each, steps)};
}

}  // namespace convnet
