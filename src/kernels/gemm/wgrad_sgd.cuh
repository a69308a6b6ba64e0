// The gradient of a dense layer's weights that goes into their update and not to memory: what
// dense_wgrad_sgd.cu (FFMA) and mma_wgrad_sgd.cu (tensor cores) share.
#pragma once

#include "conv.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/prefetch.h"
#include "kernels/device/vectors.h"
#include "kernels/update.cuh"

namespace convnet {

struct WgradSgdParameters {
  Plan plan;
  unsigned n, c, k;     // x [N, C], dy [N, K], w and velocity [K, C]
  float *w, *velocity;  // not touched where there are splits
  float* partials;      // with splits: the first split's sums, then the next one's; else null
  float* db;            // null, the gradient, or with splits the sums of it likewise
  SgdRule rule;
  bool vector_out;
};

// Asks for a block's tile of w and of the velocity, which the update reads when the product is done:
// they come from DRAM while it is formed, and the update, whose loads wait for its stores, finds them
// in L2. 128 KiB for a tile of 128 x 128.
template <class T>
__device__ inline void prefetch_tile(const WgradSgdParameters& s, unsigned first_row,
                                     unsigned first_column) {
  constexpr unsigned kLine = 32, kLines = T::kN / kLine;  // floats of a line; lines of a row
  if (s.partials != nullptr) return;
  for (unsigned i = threadIdx.x; i < T::kM * kLines; i += T::kThreads) {
    const unsigned row = first_row + i / kLines, column = first_column + i % kLines * kLine;
    if (row >= s.k || column >= s.c) continue;
    const std::size_t at = std::size_t{row} * s.c + column;
    prefetch_to_l2(s.w + at);
    prefetch_to_l2(s.velocity + at);
  }
}

// In place of StoreResult of epilogue.cuh: a finished sum is the gradient of what it is written to.
struct UpdateResult {
  const SgdRule& rule;
  UpdateFactors by;
  float* velocity;

  __device__ void operator()(float* w, unsigned at, float4 grad) const {
    float4 v = load4(velocity + at), value = load4(w + at);
    const bool finite =
        update_value(by, grad.x, &v.x, &value.x) & update_value(by, grad.y, &v.y, &value.y) &
        update_value(by, grad.z, &v.z, &value.z) & update_value(by, grad.w, &v.w, &value.w);
    store4(velocity + at, v);
    store4(w + at, value);
    if (!finite) note_diverged(rule);
  }
  __device__ void operator()(float* w, unsigned at, float grad) const {
    if (!update_value(by, grad, velocity + at, w + at)) note_diverged(rule);
  }
};

// Lets store(output, store_op) see to the tile's sums: they are stored, with splits, and else w is
// updated by them, where it may be.
template <class StoreTile>
__device__ inline void finish_update(const WgradSgdParameters& parameters, Output& output,
                                     unsigned split, const StoreTile& store) {
  if (parameters.partials != nullptr) {
    output.out = parameters.partials + std::size_t{split} * parameters.plan.outputs;
    store(output, StoreResult{});
    return;
  }
  UpdateResult update{parameters.rule, {}, parameters.velocity};
  if (!update_factors(parameters.rule, &update.by)) return;
  output.out = parameters.w;
  store(output, update);
}

// What dense_wgrad_sgd() is called with.
struct WgradSgdCall {
  OpName op;
  DenseShape shape;
  Math math;
  const float *x, *dy;
  SgdRule rule;
  float *w, *velocity, *db;
  Workspace workspace;
  Stream stream;
};

// On tensor cores, for what mma_serves(). In mma_wgrad_sgd.cu.
void mma_wgrad_sgd(const WgradSgdCall& call);

// The parameters but for the plan; its splits and outputs are given. In dense_wgrad_sgd.cu.
WgradSgdParameters wgrad_sgd_parameters(const WgradSgdCall& call, unsigned splits,
                                        std::int64_t outputs);
// With splits, what is left to do: adds up db and the gradient of w, and updates w. Likewise.
void finish_splits(const WgradSgdCall& call, const WgradSgdParameters& parameters);

}  // namespace convnet
