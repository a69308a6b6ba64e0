// Fully connected layers on tensor cores: the gradient of the weights, and their update by it. What
// dense_wgrad_sgd.cu says holds here, with the plan, the tiles and the sums of mma_wgrad.cu.
#include "kernels/device/launch.h"
#include "kernels/device/mma.h"
#include "kernels/device/vectors.h"
#include "mma_plan.cuh"
#include "mma_wgrad.cuh"
#include "wgrad_sgd.cuh"

namespace convnet {
namespace {

// What a block needs when its product is done: kept in shared memory meanwhile, as the product
// takes all registers.
struct TilePlace {
  unsigned first_row, first_column, split;
};

template <class T, Math kMath, bool kVector>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    mma_wgrad_sgd_kernel(const WgradSgdParameters parameters, const float* x, const float* dy) {
  if constexpr (kCompiledForMma) {
    const TileCoord coord = block_coord(parameters.plan);
    const unsigned first_row = coord.tile_m * T::kM, first_column = coord.tile_n * T::kN;
    prefetch_tile<T>(parameters, first_row, first_column);
    const unsigned n = parameters.n, c = parameters.c, k = parameters.k;
    using Gradients = MmaMatrixColumns<T::kM, T::kThreads, kVector>;
    using Inputs = MmaMatrixColumns<T::kN, T::kThreads, kVector>;
    Gradients gradients(dy, k, n, first_row, k);
    Inputs inputs(x, c, n, first_column, c);

    __shared__ __align__(16) TilePlace kept;
    if (threadIdx.x == 0) kept = {first_row, first_column, coord.split};
    __syncthreads();
    WarpProduct<T, kMath> product;
    const KRange range = mma_split_range(parameters.plan, coord.split, n);
    MmaRowSums<T> bias{parameters.db != nullptr && coord.tile_n == 0 && threadIdx.x < T::kM};
    mma_multiply<T>(gradients, inputs, range.begin, range.end, product, bias);

    Output output{};
    output.first_row = kept.first_row;
    output.first_column = kept.first_column;
    output.rows = k;
    output.columns = c;
    output.vector = parameters.vector_out;
    finish_update(parameters, output, kept.split, [&](const Output& to, const auto& store_op) {
      store_mma_tile<T, typename Gradients::Layout, typename Inputs::Layout>(
          product.sums, to, [=](unsigned row) { return row * c; }, SameColumns{c}, store_op);
    });
    const unsigned row = kept.first_row + threadIdx.x;
    if (bias.wanted && row < k) parameters.db[std::size_t{kept.split} * k + row] = bias.sum;
  }
}

template <class T, Math kMath, bool kVector>
void run(const WgradSgdCall& call, const MmaPlan& plan, WgradSgdParameters& parameters) {
  parameters.plan = cut_for<T>(plan);
  launch(call.op, mma_wgrad_sgd_kernel<T, kMath, kVector>, parameters.plan.grid(),
         dim3(T::kThreads), T::kSharedBytes, call.stream, parameters, call.x, call.dy);
}

// The ladder of mma_wgrad.cu. Single copies have one tile only.
template <Math kMath>
void run_with(const WgradSgdCall& call, const MmaPlan& plan, bool vector,
              WgradSgdParameters& parameters) {
  using Tiles = WgradTiles<kMath>;
  if (!vector) {
    run<Across<typename Tiles::Single>, kMath, false>(call, plan, parameters);
  } else if (plan.tile == TileKind::kSmall) {
    run<Across<typename Tiles::Small>, kMath, true>(call, plan, parameters);
  } else if (plan.tile == TileKind::kMedium) {
    run<Across<typename Tiles::Medium>, kMath, true>(call, plan, parameters);
  } else if (plan.tile == TileKind::kNinetySix) {
    run<Across<typename Tiles::NinetySix>, kMath, true>(call, plan, parameters);
  } else if constexpr (kMath != Math::kBf16) {
    run<Across<typename Tiles::Large>, kMath, true>(call, plan, parameters);
  } else if (plan.tile == TileKind::kLarge) {
    run<Across<typename Tiles::Large>, kMath, true>(call, plan, parameters);
  } else {
    run<Across<typename Tiles::Huge>, kMath, true>(call, plan, parameters);
  }
}

}  // namespace

void mma_wgrad_sgd(const WgradSgdCall& call) {
  const MmaPlan plan = mma_plan(as_convolution(call.shape), Pass::kWgrad, call.math);
  WgradSgdParameters parameters = wgrad_sgd_parameters(call, plan.splits, plan.outputs);
  const DenseShape& s = call.shape;
  const bool vector = s.c % 4 == 0 && s.k % 4 == 0 && aligned16(call.x) && aligned16(call.dy);
  with_math(call.math,
            [&](auto mode) { run_with<decltype(mode)::value>(call, plan, vector, parameters); });
  finish_splits(call, parameters);
}

}  // namespace convnet
