// Convolution, gradients of filters and biases, on tensor cores: the product of conv_wgrad.cu by
// mma.cuh.
//
//   dw[k,r,s,c] = sum_{n,p,q} dy[n,p,q,k] x[n, p stride_h - pad_h + r, q stride_w - pad_w + s,
//   gC + c],   db[k] = sum_{n,p,q} dy[n,p,q,k]
//
// Tensors: x [N,H,W,C], dy [N,P,Q,K]: read. dw [K,R,S,C/G], db [K] or null: written.
// Mapping, splits and ragged edges as in conv_wgrad.cu, with the tiles of mma_plan.cuh. Both
// operands lie along their tile. db is summed from dy's part of the stages, which is float32: it
// does not depend on `math`. Three channels with stride 4 (conv1) are taken by columns
// (mma_plan.cuh); what stands for the filled-up columns of a filter is not stored. 16-byte copies
// need K/G and, unless by columns, C/G to be multiples of 4, and aligned arrays.
// Cost: 2 N P Q K R S C/G flops; the workspace is written and read once.
#include "kernels/device/launch.h"
#include "kernels/device/mma.h"
#include "kernels/device/vectors.h"
#include "mma_gather.cuh"
#include "mma_plan.cuh"
#include "mma_wgrad.cuh"

namespace convnet {
namespace {

// What a pixel number stands for, and where its window begins.
struct Windows {
  ConvShape shape;  // as_columns()
  FastDivmod by_q, by_p;
};

// B[j, i] = x[window of pixel i, tap and channel j]. Columns past the last tap are read too, as far
// as they lie on the image: what becomes of them is not stored.
template <class T, bool kVector>
class MmaWindowColumns : public CopyAlongRows<T::kN, T::kThreads, kVector, true> {
  using Base = CopyAlongRows<T::kN, T::kThreads, kVector, true>;

 public:
  // `x` points to the group's first channel.
  __device__ MmaWindowColumns(const float* x, const Windows& windows, unsigned pixels,
                              unsigned first_column)
      : x_(x), windows_(windows), pixels_(pixels) {
    const ConvShape& s = windows.shape;
    const unsigned channels = s.c / s.groups;
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned column = first_column + Base::row(load);
      const unsigned tap = column / channels;
      row_[load] = tap / s.s;
      column_[load] = tap % s.s;
      offset_[load] = (row_[load] * s.w + column_[load]) * s.c + column % channels;
    }
  }

  __device__ void copy(float* stage, unsigned first_pixel) {
    const ConvShape& s = windows_.shape;
    const unsigned pixel = first_pixel + Base::k();
    unsigned n = pixel;
    const unsigned q = windows_.by_q.split(&n), p = windows_.by_p.split(&n);
    const unsigned top = p * s.stride_h - s.pad_h, left = q * s.stride_w - s.pad_w;
    const unsigned start = ((n * s.h + top) * s.w + left) * s.c;
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const bool inside = pixel < pixels_ && top + row_[load] < unsigned(s.h) &&
                          left + column_[load] < unsigned(s.w);
      Base::copy(stage, load, x_ + (start + offset_[load]), inside);
    }
  }

 private:
  const float* x_;
  const Windows& windows_;
  unsigned pixels_;
  unsigned row_[Base::kLoads], column_[Base::kLoads], offset_[Base::kLoads];
};

// `width` columns of memory stand for `filled` columns of the product.
struct FilledColumns {
  unsigned columns, width;
  FastDivmod by_filled;

  __device__ bool valid(unsigned column) const {
    const unsigned end = column < columns ? column : 0;
    unsigned row = end;
    return column < columns && unsigned(by_filled.split(&row)) < width;
  }
  __device__ unsigned offset(unsigned column) const {
    unsigned row = column;
    const unsigned rest = by_filled.split(&row);
    return row * width + rest;
  }
};

struct WgradParameters {
  Plan plan;
  Windows windows;
  FilledColumns columns;
  unsigned filter_length;  // in memory
  bool vector_out;
};

// What a block needs when its product is done: kept in shared memory meanwhile, as the product
// takes all registers.
struct ResultPlace {
  unsigned group_filter, first_filter, first_column, split;
};

// dw and db are the results, or with splits the first split's sums of them, each followed by the
// next split's.
template <class T, Math kMath, bool kVector>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    mma_wgrad_kernel(const WgradParameters parameters, const float* x, const float* dy, float* dw,
                     float* db) {
  if constexpr (kCompiledForMma) {
    const ConvShape& s = parameters.windows.shape;
    const TileCoord coord = block_coord(parameters.plan);
    const unsigned group_c = s.c / s.groups, group_k = s.k / s.groups;
    const unsigned pixels = s.n * s.p * s.q;
    const unsigned first_filter = coord.tile_m * T::kM, first_column = coord.tile_n * T::kN;

    using Gradients = MmaMatrixColumns<T::kM, T::kThreads, kVector>;
    using Inputs = MmaWindowColumns<T, kVector>;
    Gradients gradients(dy + coord.product * group_k, s.k, pixels, first_filter, group_k);
    Inputs inputs(x + coord.product * group_c, parameters.windows, pixels, first_column);

    __shared__ __align__(16) ResultPlace kept;
    if (threadIdx.x == 0) {
      kept = {coord.product * group_k, first_filter, first_column, coord.split};
    }
    __syncthreads();
    WarpProduct<T, kMath> product;
    const KRange range = mma_split_range(parameters.plan, coord.split, pixels);
    MmaRowSums<T> bias{db != nullptr && coord.tile_n == 0 && threadIdx.x < T::kM};
    mma_multiply<T>(gradients, inputs, range.begin, range.end, product, bias);

    const unsigned group_filter = kept.group_filter, length = parameters.filter_length;
    Output output{};
    output.out = dw + std::size_t{kept.split} * parameters.plan.outputs;
    output.first_row = kept.first_filter;
    output.first_column = kept.first_column;
    output.rows = s.k / s.groups;
    output.columns = parameters.columns.columns;
    output.vector = parameters.vector_out;
    const auto start = [=](unsigned row) { return (group_filter + row) * length; };
    using LayoutA = typename Gradients::Layout;
    using LayoutB = typename Inputs::Layout;
    if (output.vector) {
      store_mma_tile<T, LayoutA, LayoutB>(product.sums, output, start,
                                          SameColumns{parameters.columns.columns});
    } else {
      store_mma_tile<T, LayoutA, LayoutB>(product.sums, output, start, parameters.columns);
    }
    const unsigned filter = kept.first_filter + threadIdx.x;
    if (bias.wanted && filter < output.rows) {
      db[std::size_t{kept.split} * s.k + group_filter + filter] = bias.sum;
    }
  }
}

struct Call {
  OpName op;
  WgradParameters parameters;
  MmaPlan plan;
  const float *x, *dy;
  float *dw, *db;
  Stream stream;
};

template <class T, Math kMath, bool kVector>
void run(Call& call) {
  call.parameters.plan = cut_for<T>(call.plan);
  launch(call.op, mma_wgrad_kernel<T, kMath, kVector>, call.parameters.plan.grid(),
         dim3(T::kThreads), T::kSharedBytes, call.stream, call.parameters, call.x, call.dy, call.dw,
         call.db);
}

// The ladder. Single copies have one tile only.
template <Math kMath>
void run_with(Call& call, bool vector) {
  using Tiles = WgradTiles<kMath>;
  const TileKind tile = call.plan.tile;
  if (!vector) {
    run<Across<typename Tiles::Single>, kMath, false>(call);
  } else if (tile == TileKind::kSmall) {
    run<Across<typename Tiles::Small>, kMath, true>(call);
  } else if (tile == TileKind::kMedium) {
    run<Across<typename Tiles::Medium>, kMath, true>(call);
  } else if (tile == TileKind::kNinetySix) {
    run<Across<typename Tiles::NinetySix>, kMath, true>(call);
  } else if constexpr (kMath != Math::kBf16) {
    run<Across<typename Tiles::Large>, kMath, true>(call);
  } else if (tile == TileKind::kLarge) {
    run<Across<typename Tiles::Large>, kMath, true>(call);
  } else {
    run<Across<typename Tiles::Huge>, kMath, true>(call);
  }
}

}  // namespace

void mma_wgrad(OpName op, const ConvShape& shape, Math math, const float* x, const float* dy,
               float* dw, float* db, Workspace workspace, Stream stream) {
  const ConvShape columns = as_columns(shape);
  const bool as_it_is = !by_columns(shape);
  const int group_c = shape.c / shape.groups, group_k = shape.k / shape.groups;
  Call call{op, {}, mma_plan(shape, Pass::kWgrad, math), x, dy, dw, db, stream};
  WgradParameters& parameters = call.parameters;
  parameters.windows.shape = columns;
  parameters.windows.by_q = FastDivmod(shape.q);
  parameters.windows.by_p = FastDivmod(shape.p);
  parameters.filter_length = shape.r * shape.s * group_c;
  parameters.columns.columns = static_cast<unsigned>(call.plan.product.n);
  parameters.columns.width = as_it_is ? parameters.filter_length : shape.s * shape.c;
  parameters.columns.by_filled = FastDivmod(as_it_is ? parameters.filter_length : columns.s);

  float* partials = partials_in(op, call.plan.workspace_floats(shape.k), workspace);
  if (partials != nullptr) {
    call.dw = partials;
    if (db != nullptr) call.db = partials + call.plan.splits * call.plan.outputs;
  }
  parameters.vector_out = as_it_is && group_c % 4 == 0 && aligned16(call.dw);
  const bool vector =
      (group_c % 4 == 0 || !as_it_is) && group_k % 4 == 0 && aligned16(x) && aligned16(dy);

  with_math(math, [&](auto mode) { run_with<decltype(mode)::value>(call, vector); });
  if (partials != nullptr) {
    sum_splits(op, partials, call.plan.splits, call.plan.outputs, group_c, Epilogue{}, dw, stream);
    if (db != nullptr) {
      sum_splits(op, call.db, call.plan.splits, shape.k, shape.k, Epilogue{}, db, stream);
    }
  }
}

}  // namespace convnet
