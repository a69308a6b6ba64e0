// Convolution, gradients of filters and biases, as one matrix product per group (implicit GEMM).
//
//   dw[k,r,s,c] = sum_{n,p,q} dy[n,p,q,k] x[n, p stride_h - pad_h + r, q stride_w - pad_w + s, gC +
//   c] db[k]       = sum_{n,p,q} dy[n,p,q,k] C[m, j] = sum_i A[m, i] B[j, i]:   m = filter of the
//   group,  j = (r,s,c),  i = (n,p,q)
//
// Tensors: x [N,H,W,C], dy [N,P,Q,K]: read. dw [K,R,S,C/G], db [K] or null: written.
// Mapping: a block computes a tile of filters x taps (simt.cuh) for one split of the pixels: dw is
// small and N P Q large, so nearly every shape has splits. Both A and B are read along their tile,
// a thread staying at its rows of it; what changes from step to step is the pixel (n,p,q). db comes
// from the dy that passes by: in the blocks of the first column of tiles, a thread per filter adds
// up the rows of A while they are in shared memory. Ragged edges: places beyond the image, and
// filters, taps and pixels past the last, are read as zeros; only filters and taps that exist are
// stored. 128-bit loads need C/G and K/G to be multiples of 4 and aligned arrays.
// Cost: 2 N P Q K R S C/G flops. x is read about R S times, mostly from L2 and the splits' share of
// it; the workspace is written and read once.
#include "conv.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/vectors.h"
#include "kernels/fast_divmod.cuh"
#include "mma_plan.cuh"
#include "wgmma_plan.cuh"
#include "wgrad.cuh"

namespace convnet {
namespace {

// What a pixel number stands for, and where its window begins.
struct Windows {
  ConvShape shape;
  FastDivmod by_q, by_p;
};

// B[j, i] = x[window of pixel i, tap and channel j]. Columns past the last tap are read too, as far
// as they lie on the image: what becomes of them is not stored.
template <class T, bool kVector>
class WindowColumns : public AlongRows<T::kN, T::kThreads, kVector> {
  using Base = AlongRows<T::kN, T::kThreads, kVector>;

 public:
  // `x` points to the group's first channel.
  __device__ WindowColumns(const float* x, const Windows& windows, unsigned pixels,
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

  __device__ void fetch(unsigned first_pixel) {
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
      read(this->values[load], x_, start + offset_[load], inside);
    }
  }

 private:
  const float* x_;
  const Windows& windows_;
  unsigned pixels_;
  unsigned row_[Base::kLoads], column_[Base::kLoads], offset_[Base::kLoads];
};

struct WgradParameters {
  Plan plan;
  Windows windows;
  bool vector_out;
};

// dw and db are the results, or with splits the first split's sums of them, each followed by the
// next split's.
template <class T, bool kVector>
__global__ void __launch_bounds__(T::kThreads, T::blocks(kVector))
    conv_wgrad_kernel(const WgradParameters parameters, const float* x, const float* dy, float* dw,
                      float* db) {
  const ConvShape& s = parameters.windows.shape;
  const TileCoord coord = block_coord(parameters.plan);
  const unsigned group_c = s.c / s.groups, group_k = s.k / s.groups;
  const unsigned columns = s.r * s.s * group_c, pixels = s.n * s.p * s.q;
  const unsigned first_filter = coord.tile_m * T::kM, first_column = coord.tile_n * T::kN;

  MatrixColumns<T::kM, T::kThreads, kVector> gradients(dy + coord.product * group_k, s.k, pixels,
                                                       first_filter, group_k);
  WindowColumns<T, kVector> inputs(x + coord.product * group_c, parameters.windows, pixels,
                                   first_column);

  float sum[T::kThreadM][T::kThreadN];
  const KRange range = split_range(parameters.plan, coord.split, pixels);
  RowSums<T> bias{db != nullptr && coord.tile_n == 0 && threadIdx.x < T::kM};
  multiply<T>(gradients, inputs, range.begin, range.end, sum, bias);

  Output output{};
  output.out = dw + std::size_t{coord.split} * parameters.plan.outputs;
  output.first_row = first_filter;
  output.first_column = first_column;
  output.rows = group_k;
  output.columns = columns;
  output.vector = parameters.vector_out;
  const unsigned group_filter = coord.product * group_k;
  store_tile<T>(sum, output, [=](unsigned row) { return (group_filter + row) * columns; });
  const unsigned filter = first_filter + threadIdx.x;
  if (bias.wanted && filter < group_k) {
    db[std::size_t{coord.split} * s.k + group_filter + filter] = bias.sum;
  }
}

template <class T, bool kVector>
void run(OpName op, const WgradParameters& parameters, const float* x, const float* dy, float* dw,
         float* db, Stream stream) {
  launch(op, conv_wgrad_kernel<T, kVector>, parameters.plan.grid(), dim3(T::kThreads), 0, stream,
         parameters, x, dy, dw, db);
}

}  // namespace

void conv_wgrad_as(OpName op, const ConvShape& shape, Math math, const float* x, const float* dy,
                   float* dw, float* db, Workspace workspace, Stream stream) {
  if (wgmma_takes(op, shape, Pass::kWgrad, math, aligned16(x))) {
    wgmma_wgrad(op, shape, math, x, dy, dw, db, workspace, stream);
    return;
  }
  if (mma_serves(shape, Pass::kWgrad, math) && device_has_mma(op)) {
    mma_wgrad(op, shape, math, x, dy, dw, db, workspace, stream);
    return;
  }
  const int group_c = shape.c / shape.groups, group_k = shape.k / shape.groups;
  WgradParameters parameters{};
  const Plan plan = parameters.plan = conv_plan(shape, Pass::kWgrad);
  parameters.windows.shape = shape;
  parameters.windows.by_q = FastDivmod(shape.q);
  parameters.windows.by_p = FastDivmod(shape.p);

  float* partials = partials_in(op, plan.workspace_floats(shape.k), workspace);
  float* dw_out = dw;
  float* db_out = db;
  if (partials != nullptr) {
    dw_out = partials;
    if (db != nullptr) db_out = partials + plan.splits * plan.outputs;
  }
  parameters.vector_out = group_c % 4 == 0 && aligned16(dw_out);
  const bool vector = group_c % 4 == 0 && group_k % 4 == 0 && aligned16(x) && aligned16(dy);

  if (plan.tile == TileKind::kLarge && vector) {
    run<LargeTile, true>(op, parameters, x, dy, dw_out, db_out, stream);
  } else if (plan.tile == TileKind::kLarge) {
    run<LargeTile, false>(op, parameters, x, dy, dw_out, db_out, stream);
  } else if (plan.tile == TileKind::kMedium && vector) {
    run<MediumWideTile, true>(op, parameters, x, dy, dw_out, db_out, stream);
  } else if (plan.tile == TileKind::kMedium) {
    run<MediumWideTile, false>(op, parameters, x, dy, dw_out, db_out, stream);
  } else if (vector) {
    run<WideTile, true>(op, parameters, x, dy, dw_out, db_out, stream);
  } else {
    run<WideTile, false>(op, parameters, x, dy, dw_out, db_out, stream);
  }
  if (partials != nullptr) {
    sum_splits(op, partials, plan.splits, plan.outputs, group_c, Epilogue{}, dw, stream);
    if (db != nullptr) {
      sum_splits(op, db_out, plan.splits, shape.k, shape.k, Epilogue{}, db, stream);
    }
  }
}

template <>
void conv_wgrad(const ConvShape& shape, Math math, const float* x, const float* dy, float* dw,
                float* db, Workspace workspace, Stream stream) {
  conv_wgrad_as("conv_wgrad", shape, math, x, dy, dw, db, workspace, stream);
}

}  // namespace convnet
