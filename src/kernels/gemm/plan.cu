// The choice of main loop, tile and splits, on the host: one rule for each, and the table of what
// was measured (tuned.cuh) before the last two.
#include "plan.cuh"

#include "choice.h"
#include "kernels/device/launch.h"
#include "tiles.cuh"
#include "tuned.cuh"

namespace convnet {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// ---- what the device has -----------------------------------------------------------------------

__global__ void architecture_kernel() {}

// Tensor cores, and code that was compiled for them.
bool device_has_mma(OpName op) {
  return kernel_code(op, reinterpret_cast<const void*>(architecture_kernel)).ptx_version >= 80;
}

// Has shared memory where its code was compiled for sm_90a.
__global__ void hopper_probe_kernel(int* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ __align__(16) int present[32];
  present[threadIdx.x] = 0;
  __syncthreads();
  *out = present[31 - threadIdx.x];
#else
  (void)out;
#endif
}

bool device_has_wgmma(OpName op) {
  // Also by the machine code's version: newer devices may count memory that the driver takes.
  const KernelCode& code = kernel_code(op, reinterpret_cast<const void*>(hopper_probe_kernel));
  return code.static_shared_bytes > 0 && code.binary_version == 90;
}

// ---- the product -------------------------------------------------------------------------------

Product product_of(const ConvShape& s, Pass pass) {
  const std::int64_t group_c = s.c / s.groups, group_k = s.k / s.groups;
  const std::int64_t taps = std::int64_t{s.r} * s.s, outputs = std::int64_t{s.n} * s.p * s.q;
  if (pass == Pass::kFprop) return {outputs, group_k, taps * group_c, s.groups};
  if (pass == Pass::kWgrad) return {group_k, taps * group_c, outputs, s.groups};
  const std::int64_t pixels = s.n * ceil_div(s.h, s.stride_h) * ceil_div(s.w, s.stride_w);
  const std::int64_t class_taps = ceil_div(s.r, s.stride_h) * ceil_div(s.s, s.stride_w);
  const std::int64_t classes =
      std::int64_t{class_count(s.stride_h, s.h)} * class_count(s.stride_w, s.w);
  return {pixels, group_c, class_taps * group_k, s.groups * classes};
}

std::int64_t outputs_of(const ConvShape& shape, Pass pass) {
  return count(pass == Pass::kFprop   ? y_dims(shape)
               : pass == Pass::kDgrad ? x_dims(shape)
                                      : w_dims(shape));
}

// ---- the main loop -----------------------------------------------------------------------------

// Sums shorter than this are left to FFMA: there a step of 16 is mostly empty, and three roundings
// of TF32 weigh more than a short chain of FFMA.
constexpr std::int64_t kFewestProducts = 32;

// Splits of mma and waves of wgmma are planned for a GPU of so many multiprocessors.
constexpr std::int64_t kMultiprocessors = 132;

// Whether wgmma keeps all multiprocessors busy: a tile for each, or slabs for two.
bool wgmma_fills_device(const ConvShape& shape, Pass pass, Precision precision) {
  if (pass != Pass::kWgrad) {
    return wgmma_plan(shape, pass, precision).tiles(shape.groups) >= kMultiprocessors;
  }
  const WgmmaWgradPlan plan = wgmma_wgrad_plan(shape);
  const std::int64_t slabs = std::int64_t{plan.splits} * plan.each;
  return plan.tiles_c * plan.tiles_k * shape.groups * slabs >= 2 * kMultiprocessors;
}

MainLoop choose_loop(OpName op, const ConvShape& shape, Pass pass, Precision precision,
                     bool aligned) {
  const Choice wgmma = choice_of("CONVNET_WGMMA");
  if (wgmma != Choice::kOff && aligned && serves(MainLoop::kWgmma, shape, pass, precision) &&
      device_has_wgmma(op)) {
    TunedTile tuned;
    const bool measured = find_tuned(pass, precision, product_of(shape, pass), &tuned) &&
                          tuned.on_hopper != OnHopper::kRule;
    if (wgmma == Choice::kAlways || (measured ? tuned.on_hopper == OnHopper::kWgmma
                                              : wgmma_fills_device(shape, pass, precision))) {
      return MainLoop::kWgmma;
    }
  }
  const bool copies = aligned || shape.storage == Storage::kFloat32;  // else single floats
  const bool mma = copies && serves(MainLoop::kMma, shape, pass, precision) && device_has_mma(op);
  return mma ? MainLoop::kMma : MainLoop::kSimt;
}

// Whether bfloat16 activations can be copied four at a time, and filters too.
bool in_fours(const ConvShape& s, Pass pass) {
  const bool c = s.c / s.groups % 4 == 0, k = s.k / s.groups % 4 == 0;
  if (pass == Pass::kDgrad) return c && k;
  return (c || by_columns(s)) && (k || pass == Pass::kFprop);
}

// ---- tiles and splits of simt and mma ----------------------------------------------------------

const char* tile_name(TileKind tile) {
  for (const auto& [kind, name] : kTileNames) {
    if (kind == tile) return name;
  }
  return "";
}

// `length` is the long side of the product, `width` the one that decides: in wgrad, where the sum
// runs over the pixels, the tiles lie across.
TileKind choose_tile(const GemmPlan& plan) {
  const Product& product = plan.product;
  const bool across = plan.pass == Pass::kWgrad;
  const std::int64_t length = across ? product.n : product.m;
  const std::int64_t width = across ? product.m : product.n;
  if (length <= 64 || width <= 32) return TileKind::kSmall;
  if (plan.loop == MainLoop::kMma && width > 64 && width <= 96) return TileKind::kNinetySix;
  if (width % 128 >= 1 && width % 128 <= 64) return TileKind::kMedium;  // 64, 192
  // Huge tiles move three quarters of what large ones do, and need two waves of blocks.
  const std::int64_t huge = ceil_div(length, 256) * ceil_div(width, 128) * product.products;
  if (plan.loop == MainLoop::kMma && has_huge_tiles(plan.pass, plan.precision) &&
      huge >= 2 * kMultiprocessors) {
    return TileKind::kHuge;
  }
  return TileKind::kLarge;
}

// Each split has so many steps at least, for one sum written and read.
constexpr std::int64_t kFewestSteps = 8;

// As many splits as bring a product to 256 blocks of a large tile: two for each multiprocessor of a
// large GPU. Smaller tiles have fewer threads, and need as many more blocks.
std::int64_t simt_splits(const TileSize& size, std::int64_t tiles, std::int64_t steps) {
  const std::int64_t wanted = 256 * 256 / size.threads / tiles;
  return max(std::int64_t{1}, min(wanted, steps / kFewestSteps));
}

// The fewest splits that take the least time: waves of blocks, each of 1 / splits of the sum. At
// most 264 blocks (which also keeps the workspace below 20 MB), or as many as run at once.
std::int64_t mma_splits(const TileSize& size, std::int64_t tiles, std::int64_t steps) {
  const std::int64_t at_once = kMultiprocessors * size.blocks;
  const std::int64_t most = min(max(at_once, 2 * kMultiprocessors) / tiles, steps / kFewestSteps);
  std::int64_t best = 1;
  const auto waves = [&](std::int64_t splits) { return ceil_div(tiles * splits, at_once); };
  for (std::int64_t splits = 2; splits <= most; ++splits) {
    if (waves(splits) * best < waves(best) * splits) best = splits;
  }
  return best;
}

unsigned choose_splits(const GemmPlan& plan) {
  if (plan.tile == TileKind::kHuge) return 1;  // only taken where there are many
  const TileSize size = tile_size(plan);
  const Product& p = plan.product;
  const std::int64_t tiles = ceil_div(p.m, size.m) * ceil_div(p.n, size.n) * p.products;
  const std::int64_t steps = ceil_div(p.k, size.step);
  return static_cast<unsigned>(plan.loop == MainLoop::kMma ? mma_splits(size, tiles, steps)
                                                           : simt_splits(size, tiles, steps));
}

}  // namespace

// ---- plans -------------------------------------------------------------------------------------

bool serves(MainLoop loop, const ConvShape& shape, Pass pass, Precision precision) {
  if (loop == MainLoop::kWgmma) return wgmma_serves(shape, pass, precision);
  if (loop == MainLoop::kSimt) return true;
  const bool half = shape.storage == Storage::kBfloat16;
  if (half && (precision != Precision::kBf16 || !in_fours(shape, pass))) return false;
  return precision != Precision::kFfma && product_of(shape, pass).k >= kFewestProducts;
}

GemmPlan plan_with(MainLoop loop, const ConvShape& shape, Pass pass, Precision precision) {
  GemmPlan plan{};
  plan.loop = loop;
  plan.pass = pass;
  plan.precision = precision;
  plan.shape = shape;
  plan.outputs = outputs_of(shape, pass);
  plan.biases = pass == Pass::kWgrad ? shape.k : 0;
  if (loop == MainLoop::kWgmma) {
    if (pass == Pass::kWgrad) plan.wgmma_wgrad = wgmma_wgrad_plan(shape);
    if (pass != Pass::kWgrad) plan.wgmma = wgmma_plan(shape, pass, precision);
    return plan;
  }
  plan.columns = loop == MainLoop::kMma && pass != Pass::kDgrad && by_columns(shape);
  if (plan.columns) plan.shape = as_columns(shape);
  plan.row_floats = static_cast<unsigned>(shape.s * (shape.c / shape.groups));
  plan.product = product_of(plan.shape, pass);
  TunedTile tuned;
  const bool measured = loop == MainLoop::kMma && shape.storage == Storage::kFloat32;
  if (measured && find_tuned(pass, precision, plan.product, &tuned)) {
    plan.tile = tuned.tile;
    plan.splits = tuned.splits;
  } else {
    plan.tile = choose_tile(plan);
    plan.splits = choose_splits(plan);
  }
  return plan;
}

GemmPlan gemm_plan(OpName op, const ConvShape& shape, Pass pass, Precision precision,
                   bool aligned) {
  return plan_with(choose_loop(op, shape, pass, precision, aligned), shape, pass, precision);
}

std::int64_t GemmPlan::workspace_floats() const {
  if (loop != MainLoop::kWgmma) return filled_filters() + split_floats();
  return pass == Pass::kWgrad ? wgmma_wgrad.workspace_floats(biases) : wgmma.filter_bytes / 4;
}

std::int64_t GemmPlan::prepared_bytes() const {
  return loop == MainLoop::kWgmma ? wgmma.filter_bytes : 4 * filled_filters();
}

std::string GemmPlan::text() const {
  const auto named = [](const std::string& kernel, const std::string& tile, unsigned splits) {
    return kernel + ", " + tile + (splits > 1 ? ", " + std::to_string(splits) + " splits" : "");
  };
  const auto size = [](int m, int n) { return std::to_string(m) + "x" + std::to_string(n); };
  if (loop == MainLoop::kSimt) return named("FFMA", tile_name(tile), splits);
  if (loop == MainLoop::kMma) return named("mma.sync", tile_name(tile), splits);
  if (pass != Pass::kWgrad) return named("wgmma", size(wgmma.pixels, wgmma.filters), 1);
  const int columns = static_cast<int>(wgmma_wgrad.sixteens) * kPieceK * shape.r * shape.s;
  return named("wgmma", size(columns, kWgradFilters), wgmma_wgrad.splits);
}

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

// ---- what the contract asks --------------------------------------------------------------------

// Enough for every loop that serves: which of them runs is decided by the device and the arrays. 16
// bytes more than the floats need, as the array may begin anywhere.
std::int64_t conv_workspace(const ConvShape& shape, Pass pass, Precision precision) {
  std::int64_t floats = 0;
  for (const MainLoop loop : {MainLoop::kSimt, MainLoop::kMma, MainLoop::kWgmma}) {
    if (!serves(loop, shape, pass, precision)) continue;
    floats = max(floats, plan_with(loop, shape, pass, precision).workspace_floats());
  }
  return floats == 0 ? 0 : floats * 4 + 16;
}

std::string conv_kernel(const ConvShape& shape, Pass pass, Precision precision) {
  return gemm_plan("conv_kernel", shape, pass, precision).text();
}

std::string precision_description(Precision precision) {
  if (precision == Precision::kFfma) return "float32 multiply-adds (FFMA)";
  if (!device_has_mma("precision_description")) {
    return precision == Precision::kFp32
               ? "float32 multiply-adds (FFMA)"
               : "as fp32: no tensor cores for it, or a build without sm_80";
  }
  if (precision == Precision::kTf32) return "TF32 on tensor cores";
  if (precision == Precision::kBf16) return "bfloat16 on tensor cores";
  return "float32 accuracy by 3xTF32 on tensor cores";
}

void pretend_implementation(const std::string&) {
  throw std::invalid_argument("pretend_implementation: no library forms these products");
}

TileChoice tile_choice(const ConvShape& shape, Pass pass, Precision precision) {
  TileChoice choice{pass, precision, 0, 0, 0, 0, "", 0, "rule"};
  if (!serves(MainLoop::kMma, shape, pass, precision)) return choice;
  const GemmPlan plan = plan_with(MainLoop::kMma, shape, pass, precision);
  choice.m = plan.product.m;
  choice.n = plan.product.n;
  choice.k = plan.product.k;
  choice.products = plan.product.products;
  choice.tile = tile_name(plan.tile);
  choice.splits = static_cast<int>(plan.splits);
  const bool wgmma = choose_loop("tile_choice", shape, pass, precision, true) == MainLoop::kWgmma;
  choice.on_hopper = wgmma ? "wgmma" : "mma";
  return choice;
}

std::vector<std::string> tiles_of(Pass pass, Precision precision) {
  std::vector<std::string> names;
  for (const auto& [kind, name] : kTileNames) {
    if (kind != TileKind::kHuge || has_huge_tiles(pass, precision)) names.push_back(name);
  }
  return names;
}

}  // namespace convnet
