// The choice among tensor-core kernels, on the host.
#include "mma_plan.cuh"

#include "kernels/device/launch.h"
#include "tuned.cuh"

namespace convnet {
namespace {

// Sums shorter than this are left to FFMA: there a step of 16 is mostly empty, and three roundings
// of TF32 weigh more than a short chain of FFMA.
constexpr std::int64_t kFewestProducts = 32;
// Splits are made for a GPU of so many multiprocessors, and at most so many blocks (which also
// keeps the workspace below 20 MB), or as many as run at once.
constexpr std::int64_t kMultiprocessors = 132, kMostBlocks = 264;
constexpr std::int64_t kFewestSteps = 8;  // of a split: 128 products, for one sum written and read

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The rule. `length` is the long side of a product, `width` the other.
TileKind choose_tile(Pass pass, Math math, std::int64_t length, std::int64_t width,
                     std::int64_t products) {
  if (length <= 64 || width <= 32) return TileKind::kSmall;
  if (width <= 64) return TileKind::kMedium;
  if (width <= 96) return TileKind::kNinetySix;
  if (width % 128 >= 1 && width % 128 <= 64) return TileKind::kMedium;  // 192
  // Huge tiles move three quarters of what large ones do, and need two waves of blocks.
  const std::int64_t huge = ceil_div(length, 256) * ceil_div(width, 128) * products;
  if (has_huge_tiles(pass, math) && huge >= 2 * 132) return TileKind::kHuge;
  return TileKind::kLarge;
}

template <class T>
unsigned splits_with(const Product& product) {
  const std::int64_t tiles =
      ceil_div(product.m, T::kM) * ceil_div(product.n, T::kN) * product.products;
  const std::int64_t at_once = kMultiprocessors * T::kBlocks;
  const std::int64_t most = min(max(at_once, kMostBlocks) / tiles,  // by blocks, and by steps
                                ceil_div(product.k, kMmaK) / kFewestSteps);
  // The fewest that take the least time: waves of blocks, each of 1 / splits of the sum.
  std::int64_t best = 1;
  const auto waves = [&](std::int64_t splits) { return ceil_div(tiles * splits, at_once); };
  for (std::int64_t splits = 2; splits <= most; ++splits) {
    if (waves(splits) * best < waves(best) * splits) best = splits;
  }
  return static_cast<unsigned>(best);
}

template <class Tiles>
unsigned splits_of(TileKind tile, bool across, const Product& product) {
  if (tile == TileKind::kLarge) {
    return splits_with<typename Tiles::Large>(product);  // lies across as it lies along
  }
  if (tile == TileKind::kNinetySix) {
    return across ? splits_with<Across<typename Tiles::NinetySix>>(product)
                  : splits_with<typename Tiles::NinetySix>(product);
  }
  if (tile == TileKind::kMedium) {
    return across ? splits_with<Across<typename Tiles::Medium>>(product)
                  : splits_with<typename Tiles::Medium>(product);
  }
  if (tile == TileKind::kSmall) {
    return across ? splits_with<Across<typename Tiles::Small>>(product)
                  : splits_with<typename Tiles::Small>(product);
  }
  return 1;  // huge tiles are only taken where there are many
}

__global__ void architecture_kernel() {}

}  // namespace

bool by_columns(const ConvShape& s) {
  return s.groups == 1 && s.c % 4 != 0 && std::int64_t{s.stride_w} * s.c % 4 == 0 &&
         std::int64_t{s.pad_w} * s.c % 4 == 0 && std::int64_t{s.w} * s.c % 4 == 0;
}

ConvShape as_columns(const ConvShape& shape) {
  if (!by_columns(shape)) return shape;
  ConvShape columns = shape;
  columns.w = shape.w * shape.c;
  columns.s = static_cast<int>(ceil_div(std::int64_t{shape.s} * shape.c, 4) * 4);
  columns.stride_w = shape.stride_w * shape.c;
  columns.pad_w = shape.pad_w * shape.c;
  columns.c = 1;
  return columns;
}

std::int64_t filled_floats(const ConvShape& shape) {
  return by_columns(shape) ? count(w_dims(as_columns(shape))) : 0;
}

bool has_huge_tiles(Pass pass, Math math) {
  return pass == Pass::kFprop ? math != Math::kFp32 : pass == Pass::kWgrad && math == Math::kBf16;
}

bool mma_serves(const ConvShape& shape, Pass pass, Math math) {
  return math != Math::kFfma && conv_product(shape, pass).k >= kFewestProducts;
}

bool device_has_mma(OpName op) {
  return kernel_code(op, reinterpret_cast<const void*>(architecture_kernel)).ptx_version >= 80;
}

std::string math_description(Math math) {
  if (math == Math::kFfma) return "float32 multiply-adds (FFMA)";
  if (!device_has_mma("math_description")) {
    return math == Math::kFp32 ? "float32 multiply-adds (FFMA)"
                               : "as fp32: no tensor cores for it, or a build without sm_80";
  }
  if (math == Math::kTf32) return "TF32 on tensor cores";
  if (math == Math::kBf16) return "bfloat16 on tensor cores";
  return "float32 accuracy by 3xTF32 on tensor cores";
}

void pretend_implementation(const std::string&) {
  throw std::invalid_argument("pretend_implementation: no library forms these products");
}

MmaPlan mma_plan(const ConvShape& shape, Pass pass, Math math) {
  MmaPlan plan{};
  plan.product = conv_product(pass == Pass::kDgrad ? shape : as_columns(shape), pass);
  const Product& product = plan.product;
  const bool across = pass == Pass::kWgrad;
  plan.outputs = conv_outputs(shape, pass);
  TunedTile tuned;
  if (find_tuned(pass, math, product, &tuned)) {
    plan.tile = tuned.tile;
    plan.splits = tuned.splits;
    return plan;
  }
  plan.tile = choose_tile(pass, math, across ? product.n : product.m,
                          across ? product.m : product.n, product.products);
  if (math == Math::kFp32) {
    plan.splits = splits_of<MmaTiles<Math::kFp32>>(plan.tile, across, product);
  } else if (math == Math::kTf32 && pass == Pass::kWgrad) {
    plan.splits = splits_of<WgradTiles<Math::kTf32>>(plan.tile, across, product);
  } else {
    plan.splits = splits_of<MmaTiles<Math::kBf16>>(plan.tile, across, product);
  }
  return plan;
}

}  // namespace convnet
