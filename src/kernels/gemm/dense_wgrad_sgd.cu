// Fully connected layers: the gradient of the weights, and their update by it.
//
//   dw[k,c] = sum_n dy[n,k] x[n,c],  db[k] = sum_n dy[n,k]
//   velocity = momentum velocity - weight_decay decay_mult lr lr_mult w - lr lr_mult dw
//   w = w + velocity
//
// Tensors: x [N,C], dy [N,K]: read. w, velocity [K,C]: read and written. db [K] or null: written.
// dw is in registers only (or, with splits, its parts are in the workspace).
// Mapping: the product of wgrad.cu, with its plan: m = k, n = c, and the sum over n. Both operands
// are read along their tile, as matrices: there are no windows. The epilogue reads velocity and w,
// which the block has asked for at its start, where wgrad.cu would write dw; with splits that is
// done by the kernel that adds them up. The sums are formed as there and the update is that of
// sgd.cu, so that all bits are those of the two operations. 16-byte accesses need C and K to be
// multiples of 4 and aligned arrays.
// Cost: 2 N C K flops; 8 bytes read and 8 written for a weight, where the two operations read 12
// and write 12.
#include "gemm.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/prefetch.h"
#include "kernels/device/vectors.h"
#include "kernels/update.cuh"
#include "kernels/warp.cuh"
#include "operands.cuh"
#include "splits.cuh"
#include "tiles.cuh"

namespace convnet {
namespace {

struct Parameters {
  TileGrid grid;
  unsigned n, c, k;     // x [N, C], dy [N, K], w and velocity [K, C]
  float *w, *velocity;  // not touched where there are splits
  float* partials;      // with splits: the first split's sums, then the next one's; else null
  float* db;            // null, the gradient, or with splits the sums of it likewise
  SgdRule rule;
  bool vector_out;
};

// Asks for a block's tile of w and of the velocity, which the update reads when the product is
// done: they come from DRAM while it is formed, and the update, whose loads wait for its stores,
// finds them in L2. 128 KiB for a tile of 128 x 128.
template <class Loop>
__device__ inline void prefetch_tile(const Parameters& s, unsigned first_row,
                                     unsigned first_column) {
  constexpr unsigned kLine = 32, kLines = Loop::kN / kLine;  // floats of a line; lines of a row
  if (s.partials != nullptr) return;
  for (unsigned i = threadIdx.x; i < Loop::kM * kLines; i += Loop::kThreads) {
    const unsigned row = first_row + i / kLines, column = first_column + i % kLines * kLine;
    if (row >= s.k || column >= s.c) continue;
    const std::size_t at = std::size_t{row} * s.c + column;
    prefetch_to_l2(s.w + at);
    prefetch_to_l2(s.velocity + at);
  }
}

// In place of StoreResult (epilogue.cuh): a finished sum is the gradient of what it is written to.
struct UpdateResult {
  const SgdRule& rule;
  UpdateFactors by;
  float* velocity;

  __device__ void operator()(const Destination<float>& out, unsigned at, float4 grad) const {
    float* const w = out.out;
    float4 v = load4(velocity + at), value = load4(w + at);
    const bool finite =
        update_value(by, grad.x, &v.x, &value.x) & update_value(by, grad.y, &v.y, &value.y) &
        update_value(by, grad.z, &v.z, &value.z) & update_value(by, grad.w, &v.w, &value.w);
    store4(velocity + at, v);
    store4(w + at, value);
    if (!finite) note_diverged(rule);
  }
  __device__ void operator()(const Destination<float>& out, unsigned at, float grad) const {
    if (!update_value(by, grad, velocity + at, out.out + at)) note_diverged(rule);
  }
};

// Lets store(output, store_op) see to the tile's sums: they are stored, with splits, and else w is
// updated by them, where it may be.
template <class StoreTile>
__device__ inline void finish_update(const Parameters& parameters, Output<float>& output,
                                     unsigned split, const StoreTile& store) {
  if (parameters.partials != nullptr) {
    output.out = {parameters.partials + std::size_t{split} * parameters.grid.outputs};
    store(output, StoreResult{});
    return;
  }
  UpdateResult update{parameters.rule, {}, parameters.velocity};
  if (!update_factors(parameters.rule, &update.by)) return;
  output.out = {parameters.w};
  store(output, update);
}

// What a block needs when its product is done: kept in shared memory meanwhile, as the product
// takes all registers.
struct ResultPlace {
  unsigned first_row, first_column, split;
};

template <class Loop, class T>
__global__ void __launch_bounds__(Loop::kThreads, Loop::kBlocks)
    dense_wgrad_sgd_kernel(const Parameters parameters, const T* x, const T* dy) {
  if constexpr (Loop::kCompiled) {
    const TileCoord coord = block_coord(parameters.grid);
    const unsigned first_row = coord.tile_m * Loop::kM, first_column = coord.tile_n * Loop::kN;
    prefetch_tile<Loop>(parameters, first_row, first_column);
    const unsigned n = parameters.n, c = parameters.c, k = parameters.k;
    using A = MatrixColumns<Loop, Loop::kM, T>;
    using B = MatrixColumns<Loop, Loop::kN, T>;
    A gradients(dy, k, n, first_row, k);
    B inputs(x, c, n, first_column, c);

    __shared__ __align__(16) ResultPlace kept;
    if (threadIdx.x == 0) kept = {first_row, first_column, coord.split};
    __syncthreads();
    typename Loop::Product product;
    const KRange range = split_range<Loop>(parameters.grid, coord.split, n);
    RowSums<Loop> bias{parameters.db != nullptr && coord.tile_n == 0 && threadIdx.x < Loop::kM};
    Loop::multiply(gradients, inputs, range.begin, range.end, product, bias);

    Output<float> output{};
    output.first_row = kept.first_row;
    output.first_column = kept.first_column;
    output.rows = k;
    output.columns = c;
    output.vector = parameters.vector_out;
    finish_update(
        parameters, output, kept.split, [&](const Output<float>& to, const auto& store_op) {
          store_tile<typename Loop::template Sums<A, B>>(
              product.sums, to, [=](unsigned row) { return row * c; }, SameColumns{c}, store_op);
        });
    const unsigned row = kept.first_row + threadIdx.x;
    if (bias.wanted && row < k) parameters.db[std::size_t{kept.split} * k + row] = bias.sum;
  }
}

// With splits, in place of sum_splits(): adds up the gradient and updates w by it.
__global__ void __launch_bounds__(kBlockThreads)
    split_update_kernel(const float* partials, unsigned splits, unsigned count, SgdRule rule,
                        float* w, float* velocity) {
  const unsigned i = global_thread();
  UpdateFactors by;
  if (i >= count || !update_factors(rule, &by)) return;
  float sum = 0.0f;
  for (unsigned split = 0; split < splits; ++split) {
    sum += partials[std::size_t{split} * count + i];
  }
  if (!update_value(by, sum, velocity + i, w + i)) note_diverged(rule);
}

}  // namespace

template <class T>
void dense_wgrad_sgd(const DenseShape& shape, Precision precision, const T* x, const T* dy,
                     const SgdRule& rule, float* w, float* velocity, float* db, Workspace workspace,
                     Stream stream) {
  const OpName op = "dense_wgrad_sgd";
  ConvShape convolution = as_convolution(shape);
  convolution.storage = storage_of<T>;
  const bool aligned = aligned16(x) && aligned16(dy);
  const GemmPlan plan = gemm_plan(op, convolution, Pass::kWgrad, precision, aligned);
  const SplitSums sums(op, plan, workspace);
  Parameters parameters{};
  parameters.n = shape.n;
  parameters.c = shape.c;
  parameters.k = shape.k;
  parameters.w = w;
  parameters.velocity = velocity;
  parameters.partials = sums.partials;
  parameters.db = sums.bias_out(db);
  parameters.rule = rule;
  parameters.vector_out =
      shape.c % 4 == 0 && (sums.split() || (aligned16(w) && aligned16(velocity)));
  const int width = vector_width<T>(plan);
  const bool vector = shape.c % width == 0 && shape.k % width == 0 && aligned4(x) && aligned4(dy);
  with_loop<Pass::kWgrad, T>(plan, vector, [&](auto loop) {
    using Loop = decltype(loop);
    parameters.grid = grid_of<Loop>(plan);
    launch(op, dense_wgrad_sgd_kernel<Loop, T>, parameters.grid.blocks(), dim3(Loop::kThreads),
           Loop::kSharedBytes, stream, parameters, x, dy);
  });
  if (!sums.split()) return;
  launch(op, split_update_kernel, blocks_for(plan.outputs), dim3(kBlockThreads), 0, stream,
         sums.partials, plan.splits, static_cast<unsigned>(plan.outputs), rule, w, velocity);
  if (db != nullptr) {
    const SplitResult<float> biases{parameters.db, plan.splits, shape.k, shape.k, db, {}};
    sum_splits(op, biases, stream);
  }
}

template void dense_wgrad_sgd(const DenseShape&, Precision, const float*, const float*,
                              const SgdRule&, float*, float*, float*, Workspace, Stream);
template void dense_wgrad_sgd(const DenseShape&, Precision, const Bfloat16*, const Bfloat16*,
                              const SgdRule&, float*, float*, float*, Workspace, Stream);

}  // namespace convnet
