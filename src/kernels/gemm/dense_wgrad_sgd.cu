// Fully connected layers: the gradient of the weights, and their update by it.
//
//   dw[k,c] = sum_n dy[n,k] x[n,c],  db[k] = sum_n dy[n,k]
//   velocity = momentum velocity - weight_decay decay_mult lr lr_mult w - lr lr_mult dw
//   w = w + velocity
//
// Tensors: x [N,C], dy [N,K]: read. w, velocity [K,C]: read and written. db [K] or null: written.
// dw is in registers only (or, with splits, its parts are in the workspace).
// Mapping: the product of conv_wgrad.cu, with its plan: m = k, n = c, and the sum over n. Both
// operands are read along their tile. The epilogue reads velocity and w, which the block has asked for
// at its start, where conv_wgrad.cu would write dw; with splits that is done by the kernel that adds them up. The sums are formed as there
// and the update is that of sgd.cu, so that all bits are those of the two operations. 128-bit
// accesses need C and K to be multiples of 4 and aligned arrays.
// Cost: 2 N C K flops; 8 bytes read and 8 written for a weight, where the two operations read 12
// and write 12.
#include "kernels/device/launch.h"
#include "kernels/device/vectors.h"
#include "kernels/fast_divmod.cuh"
#include "kernels/warp.cuh"
#include "mma_plan.cuh"
#include "wgrad.cuh"
#include "wgrad_sgd.cuh"

namespace convnet {
namespace {

template <class T, bool kVector>
__global__ void __launch_bounds__(T::kThreads, T::blocks(kVector))
    dense_wgrad_sgd_kernel(const WgradSgdParameters parameters, const float* x, const float* dy) {
  const TileCoord coord = block_coord(parameters.plan);
  const unsigned first_row = coord.tile_m * T::kM, first_column = coord.tile_n * T::kN;
  prefetch_tile<T>(parameters, first_row, first_column);
  const unsigned n = parameters.n, c = parameters.c, k = parameters.k;
  MatrixColumns<T::kM, T::kThreads, kVector> gradients(dy, k, n, first_row, k);
  MatrixColumns<T::kN, T::kThreads, kVector> inputs(x, c, n, first_column, c);

  float sum[T::kThreadM][T::kThreadN];
  const KRange range = split_range(parameters.plan, coord.split, n);
  RowSums<T> bias{parameters.db != nullptr && coord.tile_n == 0 && threadIdx.x < T::kM};
  multiply<T>(gradients, inputs, range.begin, range.end, sum, bias);

  Output output{};
  output.first_row = first_row;
  output.first_column = first_column;
  output.rows = k;
  output.columns = c;
  output.vector = parameters.vector_out;
  finish_update(parameters, output, coord.split, [&](const Output& to, const auto& store_op) {
    store_tile<T>(sum, to, [=](unsigned row) { return row * c; }, store_op);
  });
  const unsigned row = first_row + threadIdx.x;
  if (bias.wanted && row < k) parameters.db[std::size_t{coord.split} * k + row] = bias.sum;
}

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

template <class T, bool kVector>
void run(const WgradSgdCall& call, const WgradSgdParameters& parameters) {
  launch(call.op, dense_wgrad_sgd_kernel<T, kVector>, parameters.plan.grid(), dim3(T::kThreads), 0,
         call.stream, parameters, call.x, call.dy);
}

// By FFMA.
void ffma_wgrad_sgd(const WgradSgdCall& call) {
  const Plan plan = conv_plan(as_convolution(call.shape), Pass::kWgrad);
  WgradSgdParameters parameters = wgrad_sgd_parameters(call, plan.splits, plan.outputs);
  parameters.plan = plan;
  const DenseShape& s = call.shape;
  const bool vector = s.c % 4 == 0 && s.k % 4 == 0 && aligned16(call.x) && aligned16(call.dy);
  if (plan.tile == TileKind::kLarge && vector) {
    run<LargeTile, true>(call, parameters);
  } else if (plan.tile == TileKind::kLarge) {
    run<LargeTile, false>(call, parameters);
  } else if (plan.tile == TileKind::kMedium && vector) {
    run<MediumWideTile, true>(call, parameters);
  } else if (plan.tile == TileKind::kMedium) {
    run<MediumWideTile, false>(call, parameters);
  } else if (vector) {
    run<WideTile, true>(call, parameters);
  } else {
    run<WideTile, false>(call, parameters);
  }
  finish_splits(call, parameters);
}

}  // namespace

WgradSgdParameters wgrad_sgd_parameters(const WgradSgdCall& call, unsigned splits,
                                        std::int64_t outputs) {
  const DenseShape& s = call.shape;
  WgradSgdParameters parameters{};
  parameters.n = s.n;
  parameters.c = s.c;
  parameters.k = s.k;
  parameters.w = call.w;
  parameters.velocity = call.velocity;
  parameters.db = call.db;
  parameters.rule = call.rule;
  if (splits > 1) {
    parameters.partials = partials_in(call.op, splits * (outputs + s.k), call.workspace);
    if (call.db != nullptr) parameters.db = parameters.partials + splits * outputs;
  }
  const bool aligned = parameters.partials != nullptr
                           ? aligned16(parameters.partials)
                           : aligned16(call.w) && aligned16(call.velocity);
  parameters.vector_out = s.c % 4 == 0 && aligned;
  return parameters;
}

void finish_splits(const WgradSgdCall& call, const WgradSgdParameters& parameters) {
  if (parameters.partials == nullptr) return;
  const Plan& plan = parameters.plan;
  launch(call.op, split_update_kernel, blocks_for(plan.outputs), dim3(kBlockThreads), 0,
         call.stream, parameters.partials, plan.splits, static_cast<unsigned>(plan.outputs),
         call.rule, call.w, call.velocity);
  if (call.db != nullptr) {
    sum_splits(call.op, parameters.db, plan.splits, call.shape.k, call.shape.k, Epilogue{}, call.db,
               call.stream);
  }
}

template <>
void dense_wgrad_sgd(const DenseShape& shape, Math math, const float* x, const float* dy,
                     const SgdRule& rule, float* w, float* velocity, float* db, Workspace workspace,
                     Stream stream) {
  const WgradSgdCall call{"dense_wgrad_sgd", shape, math,      x,     dy, rule, w,
                          velocity,          db,    workspace, stream};
  if (mma_serves(as_convolution(shape), Pass::kWgrad, math) && device_has_mma(call.op)) {
    mma_wgrad_sgd(call);
  } else {
    ffma_wgrad_sgd(call);
  }
}

}  // namespace convnet
