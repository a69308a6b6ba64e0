// What the three passes of a convolution share on the host, the choice of tiles and splits, and the
// kernel that adds up the splits:
//
//   out[i] = mask(relu(bias[i mod channels] + sum_split partials[split, i])),   i < count
//
// Tensors: partials [splits, count] read; out [count] written; bias [channels], mask [count] read.
// Mapping: a thread per element, or per four where they lie in a row of channels and are aligned;
// splits in order, so that the bits do not depend on the schedule.
// Cost: 4 (splits + 1) bytes an element, limited by memory; the partials of a plan are at most
// kBlocks tiles, 17 MB, and mostly still in L2.
#include "conv.cuh"

#include "kernels/device/launch.h"
#include "kernels/device/vectors.h"
#include "kernels/dropout.cuh"
#include "kernels/fast_divmod.cuh"
#include "kernels/warp.cuh"
#include "mma_plan.cuh"
#include "tuned.cuh"
#include "wgmma_plan.cuh"

namespace convnet {
namespace {

// As many splits are made as bring a product to this many blocks of a large tile: two for each
// multiprocessor of a large GPU. Smaller tiles have fewer threads, and need as many more blocks.
constexpr std::int64_t kBlocks = 256;
constexpr std::int64_t kFewestSteps = 8;  // of a split: 64 products, for one sum written and read

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// `length` is the product's long side, `width` the one that decides: in wgrad, where the sum runs
// over the pixels, the tiles lie across.
TileKind choose_tile(std::int64_t length, std::int64_t width) {
  if (length <= 64 || width <= 32) return TileKind::kSmall;
  const std::int64_t rest = width % 128;
  return rest >= 1 && rest <= 64 ? TileKind::kMedium : TileKind::kLarge;
}

template <class T>
void cut(const Product& product, Plan* plan) {
  const std::int64_t tiles_m = ceil_div(product.m, T::kM), tiles_n = ceil_div(product.n, T::kN);
  const std::int64_t blocks = kBlocks * LargeTile::kThreads / T::kThreads;
  const std::int64_t wanted = blocks / (tiles_m * tiles_n * product.products);
  const std::int64_t possible = ceil_div(product.k, kTileK) / kFewestSteps;
  plan->tiles_m = static_cast<unsigned>(tiles_m);
  plan->tiles_n = static_cast<unsigned>(tiles_n);
  plan->products = static_cast<unsigned>(product.products);
  plan->splits = static_cast<unsigned>(max(std::int64_t{1}, min(wanted, possible)));
}

__device__ inline void add(float& sum, float v) { sum += v; }
__device__ inline void add(float4& sum, float4 v) {
  sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
}

// V is float or float4; `count` and `by_channels` count those.
template <class V>
__global__ void __launch_bounds__(kBlockThreads)
    split_sum_kernel(const float* partials, unsigned splits, unsigned count, FastDivmod by_channels,
                     Epilogue epilogue, float* out) {
  const unsigned i = global_thread();
  if (i >= count) return;
  const V* from = reinterpret_cast<const V*>(partials) + i;
  V sum{};
  for (unsigned split = 0; split < splits; ++split) add(sum, from[std::size_t{split} * count]);
  constexpr unsigned kWidth = sizeof(V) / 4;
  unsigned rest = i;
  const V bias = bias_of<V>(epilogue, by_channels.split(&rest) * kWidth);
  reinterpret_cast<V*>(out)[i] = finish<EpilogueKind::kAny>(sum, epilogue, bias, i * kWidth);
}

// A thread for each four numbers of the mask that lie in a row, as in dropout.cu.
__global__ void __launch_bounds__(kBlockThreads)
    split_dropout_kernel(const float* partials, unsigned splits, unsigned rows, unsigned channels,
                         FastDivmod by_fours, unsigned fours, Epilogue epilogue, DropoutDraw draw,
                         float* out) {
  unsigned row = global_thread();
  if (row >= rows * fours) return;
  draw.begin();
  const auto four = static_cast<unsigned>(by_fours.split(&row));
  const std::uint64_t begin = draw.origin + row * draw.global_cols;
  const Philox4 bits = draw.four(begin / 4 + four);
  const unsigned first = 4 * four - static_cast<unsigned>(begin % 4);  // may be negative
  const std::size_t count = std::size_t{rows} * channels;
#pragma unroll
  for (unsigned t = 0; t < 4; ++t) {
    const unsigned channel = first + t, i = row * channels + channel;
    if (channel >= channels) continue;
    float sum = 0.0f;
    for (unsigned split = 0; split < splits; ++split) sum += partials[split * count + i];
    const float bias = bias_of<float>(epilogue, channel);
    out[i] = draw.masked(bits.v[t], finish<EpilogueKind::kAny>(sum, epilogue, bias, i));
  }
}

}  // namespace

Product conv_product(const ConvShape& s, Pass pass) {
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

std::int64_t conv_outputs(const ConvShape& shape, Pass pass) {
  return count(pass == Pass::kFprop   ? y_dims(shape)
               : pass == Pass::kDgrad ? x_dims(shape)
                                      : w_dims(shape));
}

Plan conv_plan(const ConvShape& shape, Pass pass) {
  const Product product = conv_product(shape, pass);
  Plan plan{};
  const bool across = pass == Pass::kWgrad;
  plan.tile = across ? choose_tile(product.n, product.m) : choose_tile(product.m, product.n);
  if (plan.tile == TileKind::kLarge) {
    cut<LargeTile>(product, &plan);
  } else if (plan.tile == TileKind::kMedium && across) {
    cut<MediumWideTile>(product, &plan);
  } else if (plan.tile == TileKind::kMedium) {
    cut<MediumTile>(product, &plan);
  } else if (across) {
    cut<WideTile>(product, &plan);
  } else {
    cut<NarrowTile>(product, &plan);
  }
  plan.outputs = conv_outputs(shape, pass);
  return plan;
}

// Enough for the FFMA kernels and for those of tensor cores: which of them run is decided by the
// device. 16 bytes more than the floats need, as the array may begin anywhere.
std::int64_t conv_workspace(const ConvShape& shape, Pass pass, Math math) {
  const std::int64_t db = pass == Pass::kWgrad ? shape.k : 0;
  std::int64_t floats = conv_plan(shape, pass).workspace_floats(db);
  if (mma_serves(shape, pass, math)) {
    const std::int64_t filled = pass == Pass::kFprop ? filled_floats(shape) : 0;
    floats = max(floats, filled + mma_plan(shape, pass, math).workspace_floats(db));
  }
  floats = max(floats, wgmma_workspace_floats(shape, pass, math));
  return floats == 0 ? 0 : floats * 4 + 16;
}

std::string conv_kernel(const ConvShape& shape, Pass pass, Math math) {
  const auto named = [](const std::string& kernel, const std::string& tile, unsigned splits) {
    return kernel + ", " + tile + (splits > 1 ? ", " + std::to_string(splits) + " splits" : "");
  };
  if (wgmma_takes("conv_kernel", shape, pass, math)) {
    if (pass == Pass::kWgrad) {
      const WgmmaWgradPlan plan = wgmma_wgrad_plan(shape, math);
      const int columns = static_cast<int>(plan.sixteens) * kSlabK * shape.r * shape.s;
      return named("wgmma", std::to_string(columns) + "x" + std::to_string(kWgradFilters),
                   plan.splits);
    }
    const WgmmaPlan plan = wgmma_plan(shape, pass, math);
    return named("wgmma", std::to_string(plan.pixels) + "x" + std::to_string(plan.filters), 1);
  }
  if (mma_serves(shape, pass, math) && device_has_mma("conv_kernel")) {
    const MmaPlan plan = mma_plan(shape, pass, math);
    return named("mma.sync", tile_name(plan.tile), plan.splits);
  }
  const Plan plan = conv_plan(shape, pass);
  return named("FFMA", tile_name(plan.tile), plan.splits);
}

float* partials_in(OpName op, std::int64_t floats, Workspace workspace) {
  if (floats == 0) return nullptr;
  const auto address = reinterpret_cast<std::uintptr_t>(workspace.data);
  const std::uintptr_t skip = (16 - address % 16) % 16;
  const std::int64_t need = floats * 4 + static_cast<std::int64_t>(skip);
  if (workspace.data == nullptr || workspace.bytes < need) {
    fail(op.name, "workspace", std::to_string(need) + " bytes", std::to_string(workspace.bytes));
  }
  return reinterpret_cast<float*>(address + skip);
}

void sum_splits(OpName op, const float* partials, unsigned splits, std::int64_t count,
                std::int64_t channels, const Epilogue& epilogue, float* out, void* stream) {
  const bool vector =
      channels % 4 == 0 && aligned16(partials) && aligned16(out) && epilogue.aligned();
  const std::int64_t width = vector ? 4 : 1;
  launch(op, vector ? split_sum_kernel<float4> : split_sum_kernel<float>, blocks_for(count / width),
         dim3(kBlockThreads), 0, stream, partials, splits, static_cast<unsigned>(count / width),
         FastDivmod(channels / width), epilogue, out);
}

void sum_splits_and_drop(OpName op, const float* partials, unsigned splits, std::int64_t count,
                         std::int64_t channels, const Epilogue& epilogue, const DropoutDraw& draw,
                         float* out, void* stream) {
  const std::int64_t rows = count / channels, fours = (channels + 6) / 4;
  launch(op, split_dropout_kernel, blocks_for(rows * fours), dim3(kBlockThreads), 0, stream,
         partials, splits, static_cast<unsigned>(rows), static_cast<unsigned>(channels),
         FastDivmod(fours), static_cast<unsigned>(fours), epilogue, draw, out);
}

}  // namespace convnet
