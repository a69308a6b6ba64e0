// Convolution, forward, on tensor cores: the product of conv_fprop.cu by mma.cuh.
//
//   y[n,p,q,k] = relu(b[k] + sum_{r,s,c} x[n, p stride_h - pad_h + r, q stride_w - pad_w + s, gC +
//   c] w[k,r,s,c])
//   C[m, j] = sum_i A[m, i] B[j, i]:   m = (n,p,q),  j = filter of the group,  i = (r,s,c)
//
// Tensors: x [N,H,W,C], w [K,R,S,C/G], b [K] or null: read. y [N,P,Q,K]: written.
// Mapping, splits and ragged edges as in conv_fprop.cu, with the tiles of mma_plan.cuh. Three
// channels with stride 4 (conv1) are taken by columns (mma_plan.cuh), with a copy of w whose rows
// are filled up: mma_filters(). 16-byte copies need C/G to be a multiple of 4, or columns,
// and aligned arrays.
// Cost: 2 N P Q K R S C/G flops; from L2 each block reads (kM + kN) R S C/G floats.
#include "kernels/device/launch.h"
#include "kernels/device/mma.h"
#include "kernels/device/vectors.h"
#include "kernels/dropout.cuh"
#include "kernels/warp.cuh"
#include "mma_gather.cuh"
#include "mma_plan.cuh"

namespace convnet {
namespace {

struct FpropParameters {
  Plan plan;
  ConvShape shape;  // as_columns()
  Taps taps;
  KOrder order;
  Epilogue epilogue;
  DropoutDraw draw;  // wanted for dense layers only, and not where there are splits
  bool vector_out;
};

// What a block needs when its product is done: kept in shared memory meanwhile, as the product
// takes all registers.
struct ResultPlace {
  unsigned first_row, first_filter, first_channel, split;
};

template <class T, Math kMath, bool kVector>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    mma_fprop_kernel(const FpropParameters parameters, const float* x, const float* w, float* y) {
  if constexpr (kCompiledForMma) {
    const ConvShape& s = parameters.shape;
    const TileCoord coord = block_coord(parameters.plan);
    const unsigned group_k = s.k / s.groups, rows = s.n * s.p * s.q;
    const unsigned first_row = coord.tile_m * T::kM, first_filter = coord.tile_n * T::kN;

    using Pixels = MmaPixelRows<T, kVector, 1>;
    using Filters = MmaFilters<T, kVector>;
    Pixels pixels(x, parameters.taps, parameters.order);
#pragma unroll
    for (int load = 0; load < Pixels::kLoads; ++load) {
      const unsigned row = first_row + Pixels::row(load);
      const unsigned line = row / s.q, q = row % s.q, n = line / s.p, p = line % s.p;
      if (row < rows) {
        pixels.begin_row(load, n, p * s.stride_h - s.pad_h, q * s.stride_w - s.pad_w,
                         coord.product * (s.c / s.groups));
      } else {
        pixels.skip_row(load);
      }
    }
    const unsigned length = parameters.taps.length;
    Filters filters(w + coord.product * group_k * length, first_filter, group_k, s.c / s.groups,
                    length, parameters.order);

    __shared__ __align__(16) ResultPlace kept;
    if (threadIdx.x == 0) {
      kept = {first_row, first_filter, coord.product * group_k, coord.split};
    }
    __syncthreads();
    WarpProduct<T, kMath> product;
    const KRange range = mma_split_range(parameters.plan, coord.split, length);
    OnlyMma also;
    mma_multiply<T>(pixels, filters, range.begin, range.end, product, also);

    Output output{};
    output.out = y + std::size_t{kept.split} * parameters.plan.outputs;
    output.first_row = kept.first_row;
    output.first_column = kept.first_filter;
    output.rows = s.n * s.p * s.q;
    output.columns = s.k / s.groups;
    output.first_channel = kept.first_channel;
    output.vector = parameters.vector_out;
    output.epilogue = parameters.epilogue;
    const unsigned pitch = s.k, first_channel = output.first_channel;
    store_mma_tile<T, typename Pixels::Layout, typename Filters::Layout>(
        product.sums, output, [=](unsigned row) { return row * pitch + first_channel; },
        SameColumns{output.columns});
    if (parameters.draw.wanted) {
      drop_tile<T::kM, T::kN, T::kThreads>(parameters.draw, y, kept.first_row, output.rows,
                                           kept.first_filter, output.columns);
    }
  }
}

// filled[row, i] = w[row, i], or 0 for i >= width: rows of filters for as_columns().
__global__ void __launch_bounds__(kBlockThreads)
    fill_rows_kernel(const float* w, unsigned count, unsigned width, FastDivmod by_filled,
                     float* filled) {
  const unsigned i = global_thread();
  if (i >= count) return;
  unsigned row = i;
  const unsigned column = by_filled.split(&row);
  filled[i] = column < width ? w[row * width + column] : 0.0f;
}

struct Call {
  OpName op;
  FpropParameters parameters;
  MmaPlan plan;
  const float *x, *w;
  float* y;
  Stream stream;
};

template <class T, Math kMath, bool kVector>
void run(Call& call) {
  call.parameters.plan = cut_for<T>(call.plan);
  launch(call.op, mma_fprop_kernel<T, kMath, kVector>, call.parameters.plan.grid(),
         dim3(T::kThreads), T::kSharedBytes, call.stream, call.parameters, call.x, call.w, call.y);
}

// The ladder. Single copies have one tile only.
template <Math kMath>
void run_with(Call& call, bool vector) {
  using Tiles = MmaTiles<kMath>;
  const TileKind tile = call.plan.tile;
  if (!vector) {
    run<typename Tiles::Single, kMath, false>(call);
  } else if (tile == TileKind::kSmall) {
    run<typename Tiles::Small, kMath, true>(call);
  } else if (tile == TileKind::kMedium) {
    run<typename Tiles::Medium, kMath, true>(call);
  } else if (tile == TileKind::kNinetySix) {
    run<typename Tiles::NinetySix, kMath, true>(call);
  } else if constexpr (kMath == Math::kFp32) {
    run<typename Tiles::Large, kMath, true>(call);
  } else if (tile == TileKind::kLarge) {
    run<typename Tiles::Large, kMath, true>(call);
  } else {
    run<typename Tiles::Huge, kMath, true>(call);
  }
}

}  // namespace

const float* mma_filters(OpName op, const ConvShape& shape, const float* w, Workspace* workspace,
                         Stream stream) {
  const std::int64_t count = filled_floats(shape);
  if (count == 0) return w;
  float* filled = partials_in(op, count, *workspace);
  launch(op, fill_rows_kernel, blocks_for(count), dim3(kBlockThreads), 0, stream, w,
         static_cast<unsigned>(count), static_cast<unsigned>(shape.s * shape.c),
         FastDivmod(as_columns(shape).s), filled);
  auto* const end = static_cast<char*>(workspace->data) + workspace->bytes;
  *workspace = {filled + count, end - reinterpret_cast<char*>(filled + count)};
  return filled;
}

void mma_fprop(OpName op, const ConvShape& shape, Math math, const float* x, const float* filters,
               const float* b, bool relu, float* y, Workspace workspace, Stream stream,
               const DropoutRule* rule) {
  const ConvShape columns = as_columns(shape);
  const unsigned group_c = columns.c / columns.groups, group_k = shape.k / shape.groups;
  Call call{op, {}, mma_plan(shape, Pass::kFprop, math), x, filters, y, stream};
  FpropParameters& parameters = call.parameters;
  parameters.shape = columns;
  parameters.taps.height = columns.h;
  parameters.taps.width = columns.w;
  parameters.taps.pitch = columns.c;
  parameters.taps.length = columns.r * columns.s * group_c;
  parameters.order = k_order(group_c, columns.r * columns.s);
  parameters.taps.by_width = FastDivmod(columns.s);

  float* partials = partials_in(op, call.plan.workspace_floats(), workspace);
  const Epilogue epilogue{b, nullptr, relu};
  const DropoutDraw draw = rule == nullptr ? DropoutDraw{} : dropout_draw(*rule);
  if (partials == nullptr) {
    parameters.epilogue = epilogue;
    parameters.draw = draw;
  }
  if (partials != nullptr) call.y = partials;
  const bool fours = group_c % 4 == 0 || by_columns(shape);
  const bool vector = fours && aligned16(x) && aligned16(filters);
  parameters.vector_out = group_k % 4 == 0 && aligned16(call.y);

  with_math(math, [&](auto mode) { run_with<decltype(mode)::value>(call, vector); });
  if (partials != nullptr && draw.wanted) {
    sum_splits_and_drop(op, partials, call.plan.splits, call.plan.outputs, shape.k, epilogue, draw,
                        y, stream);
  } else if (partials != nullptr) {
    sum_splits(op, partials, call.plan.splits, call.plan.outputs, shape.k, epilogue, y, stream);
  }
}

}  // namespace convnet
