// Convolution, forward, as one matrix product per group (implicit GEMM).
//
//   y[n,p,q,k] = relu(b[k] + sum_{r,s,c} w[k,r,s,c]
//                            x[n, p stride_h - pad_h + r, q stride_w - pad_w + s, gC + c])
//                                              (ops.h; g C is the group's first channel)
//   C[m, j] = sum_i A[m, i] B[j, i]:   m = (n,p,q),  j = filter of the group,  i = (r,s,c)
//
// Tensors: x [N,H,W,C], w [K,R,S,C/G], b [K] or null: read. y [N,P,Q,K]: written.
// Mapping: a block computes a tile of pixels x filters by its main loop (simt.cuh, mma.cuh), and
// with splits a part of the sum over i (splits.cuh). A is never formed: PixelRows (operands.cuh)
// reads its elements from x. On tensor cores three channels with stride 4 (conv1) are taken by
// columns (plan.cuh), with a copy of w whose rows are filled up: prepare_filters().
// Ragged edges: places beyond the image, rows past the last pixel, filters past the last and i past
// R S C/G are read as zeros; only pixels and filters that exist are stored. Any shape that ops.h
// allows will do; 16-byte loads and copies need C/G to be a multiple of 4, or columns, and aligned
// arrays.
// Cost: 2 N P Q K R S C/G flops; from L2 each block reads (kM + kN) R S C/G floats.
#include "gemm.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/vectors.h"
#include "kernels/dropout.cuh"
#include "operands.cuh"
#include "splits.cuh"
#include "tiles.cuh"

namespace convnet {
namespace {

template <class T>
struct FpropParameters {
  TileGrid grid;
  ConvShape shape;  // of the plan
  Taps taps;
  Epilogue<T> epilogue;
  DropoutDraw draw;  // wanted for dense layers only, and not where there are splits
  bool vector_out;
};

// What a block needs when its product is done: kept in shared memory meanwhile, as the product
// takes all registers.
struct ResultPlace {
  unsigned first_row, first_filter, first_channel, split;
};

template <class Loop, class T>
__global__ void __launch_bounds__(Loop::kThreads, Loop::kBlocks)
    conv_fprop_kernel(const FpropParameters<T> parameters, const T* x, const float* w,
                      Destination<T> y) {
  if constexpr (Loop::kCompiled) {
    const ConvShape& s = parameters.shape;
    const TileCoord coord = block_coord(parameters.grid);
    const unsigned group_k = s.k / s.groups, rows = s.n * s.p * s.q;
    const unsigned first_row = coord.tile_m * Loop::kM, first_filter = coord.tile_n * Loop::kN;

    using A = PixelRows<Loop, 1, T>;
    using B = Filters<Loop>;
    A pixels(x, parameters.taps);
#pragma unroll
    for (int load = 0; load < A::kLoads; ++load) {
      const unsigned row = first_row + A::row(load);
      const unsigned line = row / s.q, q = row % s.q, n = line / s.p, p = line % s.p;
      if (row < rows) {
        pixels.begin_row(load, n, p * s.stride_h - s.pad_h, q * s.stride_w - s.pad_w,
                         coord.product * (s.c / s.groups));
      } else {
        pixels.skip_row(load);
      }
    }
    const unsigned length = parameters.taps.length;
    B filters(w + coord.product * group_k * length, first_filter, group_k, s.c / s.groups,
              parameters.taps);

    __shared__ __align__(16) ResultPlace kept;
    if (threadIdx.x == 0) {
      kept = {first_row, first_filter, coord.product * group_k, coord.split};
    }
    __syncthreads();
    typename Loop::Product product;
    const KRange range = split_range<Loop>(parameters.grid, coord.split, length);
    NothingElse also;
    Loop::multiply(pixels, filters, range.begin, range.end, product, also);

    Output<T> output{};
    output.out = y.from(std::size_t{kept.split} * parameters.grid.outputs);
    output.first_row = kept.first_row;
    output.first_column = kept.first_filter;
    output.rows = s.n * s.p * s.q;
    output.columns = s.k / s.groups;
    output.first_channel = kept.first_channel;
    output.vector = parameters.vector_out;
    // No mask, and the compiler is to know it.
    output.epilogue = {parameters.epilogue.bias, nullptr, parameters.epilogue.relu};
    const unsigned pitch = s.k, first_channel = output.first_channel;
    store_tile<typename Loop::template Sums<A, B>>(
        product.sums, output, [=](unsigned row) { return row * pitch + first_channel; },
        SameColumns{output.columns});
    if (parameters.draw.wanted) {
      drop_tile<Loop::kM, Loop::kN, Loop::kThreads>(parameters.draw, y.out, kept.first_row,
                                                    output.rows, kept.first_filter, output.columns);
    }
  }
}

}  // namespace

template <class T>
void gemm_fprop(OpName op, const GemmPlan& plan, const T* x, const float* filters,
                const Epilogue<T>& epilogue, const DropoutRule* rule, T* y, Workspace workspace,
                Stream stream) {
  const ConvShape& s = plan.shape;
  const unsigned group_c = s.c / s.groups, group_k = s.k / s.groups;
  FpropParameters<T> parameters{};
  parameters.shape = s;
  parameters.taps.height = s.h;
  parameters.taps.width = s.w;
  parameters.taps.pitch = s.c;
  parameters.taps.length = s.r * s.s * group_c;
  parameters.taps.by_width = FastDivmod(s.s);
  parameters.taps.order = k_order(group_c, s.r * s.s);

  const SplitSums sums(op, plan, workspace);
  const DropoutDraw draw = rule == nullptr ? DropoutDraw{} : dropout_draw(*rule);
  if (!sums.split()) {
    parameters.epilogue = epilogue;
    parameters.draw = draw;
  }
  const Destination<T> out = sums.destination(y);
  parameters.vector_out = group_k % 4 == 0 && out.aligned();
  const unsigned width = vector_width<T>(plan);
  const bool rows = group_c % width == 0 || (plan.columns && width == 4);
  const bool vector = rows && aligned4(x) && aligned4(filters);
  with_loop<Pass::kFprop, T>(plan, vector, [&](auto loop) {
    using Loop = decltype(loop);
    parameters.grid = grid_of<Loop>(plan);
    launch(op, conv_fprop_kernel<Loop, T>, parameters.grid.blocks(), dim3(Loop::kThreads),
           Loop::kSharedBytes, stream, parameters, x, filters, out);
  });
  if (!sums.split()) return;
  const SplitResult<T> result{sums.partials, plan.splits, plan.outputs, s.k, y, epilogue};
  if (draw.wanted) {
    sum_splits_and_drop(op, result, draw, stream);
  } else {
    sum_splits(op, result, stream);
  }
}

template void gemm_fprop(OpName, const GemmPlan&, const float*, const float*,
                         const Epilogue<float>&, const DropoutRule*, float*, Workspace, Stream);
template void gemm_fprop(OpName, const GemmPlan&, const Bfloat16*, const float*,
                         const Epilogue<Bfloat16>&, const DropoutRule*, Bfloat16*, Workspace,
                         Stream);

}  // namespace convnet
