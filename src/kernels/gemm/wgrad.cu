// Convolution, gradients of filters and biases, as one matrix product per group (implicit GEMM).
//
//   dw[k,r,s,c] = sum_{n,p,q} dy[n,p,q,k]
//                             x[n, p stride_h - pad_h + r, q stride_w - pad_w + s, gC + c]
//   db[k]       = sum_{n,p,q} dy[n,p,q,k]
//   C[m, j] = sum_i A[m, i] B[j, i]:   m = filter of the group,  j = (r,s,c),  i = (n,p,q)
//
// Tensors: x [N,H,W,C], dy [N,P,Q,K]: read. dw [K,R,S,C/G], db [K] or null: written.
// Mapping: a block computes a tile of filters x taps by its main loop (simt.cuh, mma.cuh), for one
// split of the pixels: dw is small and N P Q large, so nearly every shape has splits. Both A and B
// are read along their tile, a thread staying at its rows of it; what changes from step to step is
// the pixel (n,p,q). db comes from the dy that passes by: in the blocks of the first column of
// tiles, a thread per filter adds up the rows of A while they are in shared memory, where they are
// float32 with any main loop. On tensor cores three channels with stride 4 (conv1) are taken by
// columns (plan.cuh); what stands for the filled-up columns of a filter is not stored.
// Ragged edges: places beyond the image, and filters, taps and pixels past the last, are read as
// zeros; only filters and taps that exist are stored. 16-byte loads and copies need K/G and, unless
// by columns, C/G to be multiples of 4, and aligned arrays.
// Cost: 2 N P Q K R S C/G flops. x is read about R S times, mostly from L2 and the splits' share of
// it; the workspace is written and read once.
#include "gemm.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/vectors.h"
#include "operands.cuh"
#include "splits.cuh"
#include "tiles.cuh"

namespace convnet {
namespace {

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
  TileGrid grid;
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
template <class Loop, class T>
__global__ void __launch_bounds__(Loop::kThreads, Loop::kBlocks)
    conv_wgrad_kernel(const WgradParameters parameters, const T* x, const T* dy, float* dw,
                      float* db) {
  if constexpr (Loop::kCompiled) {
    const ConvShape& s = parameters.windows.shape;
    const TileCoord coord = block_coord(parameters.grid);
    const unsigned group_c = s.c / s.groups, group_k = s.k / s.groups;
    const unsigned pixels = s.n * s.p * s.q;
    const unsigned first_filter = coord.tile_m * Loop::kM, first_column = coord.tile_n * Loop::kN;

    using A = MatrixColumns<Loop, Loop::kM, T>;
    using B = WindowColumns<Loop, T>;
    A gradients(dy + coord.product * group_k, s.k, pixels, first_filter, group_k);
    B inputs(x + coord.product * group_c, parameters.windows, pixels, first_column);

    __shared__ __align__(16) ResultPlace kept;
    if (threadIdx.x == 0) {
      kept = {coord.product * group_k, first_filter, first_column, coord.split};
    }
    __syncthreads();
    typename Loop::Product product;
    const KRange range = split_range<Loop>(parameters.grid, coord.split, pixels);
    RowSums<Loop> bias{db != nullptr && coord.tile_n == 0 && threadIdx.x < Loop::kM};
    Loop::multiply(gradients, inputs, range.begin, range.end, product, bias);

    const unsigned group_filter = kept.group_filter, length = parameters.filter_length;
    Output<float> output{};
    output.out = {dw + std::size_t{kept.split} * parameters.grid.outputs};
    output.first_row = kept.first_filter;
    output.first_column = kept.first_column;
    output.rows = s.k / s.groups;
    output.columns = parameters.columns.columns;
    output.vector = parameters.vector_out;
    const auto start = [=](unsigned row) { return (group_filter + row) * length; };
    using Sums = typename Loop::template Sums<A, B>;
    if (!Loop::kTakesColumns || output.vector) {
      store_tile<Sums>(product.sums, output, start, SameColumns{output.columns});
    } else {
      store_tile<Sums>(product.sums, output, start, parameters.columns);
    }
    const unsigned filter = kept.first_filter + threadIdx.x;
    if (bias.wanted && filter < output.rows) {
      db[std::size_t{kept.split} * s.k + group_filter + filter] = bias.sum;
    }
  }
}

}  // namespace

template <class T>
void gemm_wgrad(OpName op, const GemmPlan& plan, const T* x, const T* dy, float* dw, float* db,
                Workspace workspace, Stream stream) {
  const ConvShape& s = plan.shape;
  const int group_c = s.c / s.groups, group_k = s.k / s.groups;
  WgradParameters parameters{};
  parameters.windows.shape = s;
  parameters.windows.by_q = FastDivmod(s.q);
  parameters.windows.by_p = FastDivmod(s.p);
  parameters.filter_length = s.r * plan.row_floats;
  parameters.columns.columns = static_cast<unsigned>(plan.product.n);
  parameters.columns.width = plan.columns ? plan.row_floats : parameters.filter_length;
  parameters.columns.by_filled = FastDivmod(plan.columns ? s.s : parameters.filter_length);

  const SplitSums sums(op, plan, workspace);
  float* const out = sums.destination(dw).out;
  float* const db_out = sums.bias_out(db);
  parameters.vector_out = group_c % 4 == 0 && aligned16(out);
  const int width = vector_width<T>(plan);
  const bool vector = (group_c % width == 0 || (plan.columns && width == 4)) &&
                      group_k % width == 0 && aligned4(x) && aligned4(dy);
  with_loop<Pass::kWgrad, T>(plan, vector, [&](auto loop) {
    using Loop = decltype(loop);
    parameters.grid = grid_of<Loop>(plan);
    launch(op, conv_wgrad_kernel<Loop, T>, parameters.grid.blocks(), dim3(Loop::kThreads),
           Loop::kSharedBytes, stream, parameters, x, dy, out, db_out);
  });
  if (!sums.split()) return;
  const SplitResult<float> weights{out, plan.splits, plan.outputs, group_c, dw, {}};
  if (db == nullptr) return sum_splits(op, weights, stream);
  sum_splits(op, weights, {db_out, plan.splits, s.k, s.k, db, {}}, stream);
}

template void gemm_wgrad(OpName, const GemmPlan&, const float*, const float*, float*, float*,
                         Workspace, Stream);
template void gemm_wgrad(OpName, const GemmPlan&, const Bfloat16*, const Bfloat16*, float*, float*,
                         Workspace, Stream);

}  // namespace convnet
