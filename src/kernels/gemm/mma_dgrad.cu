// Convolution, gradient of the input, on tensor cores: the products of conv_dgrad.cu by
// mma.cuh.
//
//   dx[n,h,w,c] = sum_{r,s,k} dy[n,p,q,k] w[k,r,s,c],  0 where relu_mask[n,h,w,c] <= 0
//
// Tensors: dy [N,P,Q,K], w [K,R,S,C/G], relu_mask [N,H,W,C] or null: read. dx [N,H,W,C]: written.
// Mapping, classes of pixels, splits and ragged edges as in conv_dgrad.cu, with the tiles of
// mma_plan.cuh. The filters are read across, as they lie: their part of a stage is laid out along
// channels. 16-byte copies need C/G and K/G to be multiples of 4 and aligned arrays.
// Cost: 2 N P Q K R S C/G flops, less what falls beyond the image, plus ragged tiles of each class.
#include "dgrad.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/mma.h"
#include "kernels/device/vectors.h"
#include "mma_gather.cuh"
#include "mma_plan.cuh"

namespace convnet {
namespace {

// B[j, l] = w[k, tap, j]: the filters, read across.
template <class T, bool kVector>
class MmaTransposedFilters : public CopyAlongRows<T::kN, T::kThreads, kVector> {
  using Base = CopyAlongRows<T::kN, T::kThreads, kVector>;

 public:
  __device__ MmaTransposedFilters(const float* w, const ConvShape& shape, const Taps& taps,
                                  const KOrder& order, Axis rows, Axis columns,
                                  unsigned first_channel)
      : w_(w),
        shape_(shape),
        taps_(taps),
        order_(order),
        channels_(shape.c / shape.groups),
        first_channel_(first_channel),
        first_tap_(rows.first_tap * shape.s + columns.first_tap) {}

  __device__ void copy(float* stage, unsigned first_k) {
    const unsigned l = first_k + Base::k();
    unsigned tap, filter;
    order_.split(first_k, Base::k(), &tap, &filter);
    const unsigned u = taps_.by_width.split(&tap);
    const unsigned place = first_tap_ + tap * shape_.stride_h * shape_.s + u * shape_.stride_w;
    const unsigned start = (filter * (shape_.r * shape_.s) + place) * channels_;
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned channel = first_channel_ + Base::row(load);
      Base::copy(stage, load, w_ + (start + channel), l < taps_.length && channel < channels_);
    }
  }

 private:
  const float* w_;
  const ConvShape& shape_;
  const Taps& taps_;
  const KOrder& order_;
  unsigned channels_, first_channel_, first_tap_;
};

// What a block needs when its product is done: kept in shared memory meanwhile, as the product
// takes all registers.
struct ResultPlace {
  Axis v, h;
  unsigned group, first_row, first_channel, split;
};

struct MmaDgradParameters : DgradParameters {
  KOrder order;
};

template <class T, Math kMath, bool kVector>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    mma_dgrad_kernel(const MmaDgradParameters parameters, const float* dy, const float* w,
                     float* dx) {
  if constexpr (kCompiledForMma) {
    const ConvShape& s = parameters.shape;
    const TileCoord coord = block_coord(parameters.plan);
    const unsigned pixel_class = coord.product % parameters.classes;
    const unsigned group = coord.product / parameters.classes;
    const unsigned group_c = s.c / s.groups, group_k = s.k / s.groups;
    const unsigned first_row = coord.tile_m * T::kM, first_channel = coord.tile_n * T::kN;
    const Axis v = class_axis(pixel_class / parameters.classes_w, s.stride_h, s.pad_h, s.h, s.r);
    const Axis h = class_axis(pixel_class % parameters.classes_w, s.stride_w, s.pad_w, s.w, s.s);
    const unsigned rows = s.n * v.count * h.count;

    Taps taps = parameters.taps;
    taps.length = v.taps * h.taps * group_k;
    if (h.taps != parameters.most_taps_w) taps.by_width = parameters.by_fewer_taps_w;

    using Pixels = MmaPixelRows<T, kVector, -1>;
    using Filters = MmaTransposedFilters<T, kVector>;
    Pixels pixels(dy, taps, parameters.order);
#pragma unroll
    for (int load = 0; load < Pixels::kLoads; ++load) {
      const unsigned row = first_row + Pixels::row(load);
      const unsigned line = row / h.count;
      if (row < rows) {
        pixels.begin_row(load, line / v.count, v.place + line % v.count, h.place + row % h.count,
                         group * group_k);
      } else {
        pixels.skip_row(load);
      }
    }
    Filters filters(w + group * group_k * (s.r * s.s * group_c), s, taps, parameters.order, v, h,
                    first_channel);

    __shared__ __align__(16) ResultPlace kept;
    if (threadIdx.x == 0) kept = {v, h, group, first_row, first_channel, coord.split};
    __syncthreads();
    WarpProduct<T, kMath> product;
    const KRange range = mma_split_range(parameters.plan, coord.split, taps.length);
    OnlyMma also;
    mma_multiply<T>(pixels, filters, range.begin, range.end, product, also);

    Output output{};
    output.out = dx + std::size_t{kept.split} * parameters.plan.outputs;
    output.first_row = kept.first_row;
    output.first_column = kept.first_channel;
    output.rows = s.n * kept.v.count * kept.h.count;
    output.columns = s.c / s.groups;
    output.vector = parameters.vector_out;
    output.epilogue = parameters.epilogue;
    const auto start = [&](unsigned row) {
      const unsigned line = row / kept.h.count;
      const unsigned y =
          line / kept.v.count * s.h + kept.v.first + line % kept.v.count * s.stride_h;
      return (y * s.w + kept.h.first + row % kept.h.count * s.stride_w) * s.c +
             kept.group * output.columns;
    };
    store_mma_tile<T, typename Pixels::Layout, typename Filters::Layout>(
        product.sums, output, start, SameColumns{output.columns});
  }
}

struct Call {
  OpName op;
  MmaDgradParameters parameters;
  MmaPlan plan;
  const float *dy, *w;
  float* dx;
  Stream stream;
};

template <class T, Math kMath, bool kVector>
void run(Call& call) {
  call.parameters.plan = cut_for<T>(call.plan);
  launch(call.op, mma_dgrad_kernel<T, kMath, kVector>, call.parameters.plan.grid(),
         dim3(T::kThreads), T::kSharedBytes, call.stream, call.parameters, call.dy, call.w,
         call.dx);
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
  } else {
    run<typename Tiles::Large, kMath, true>(call);
  }
}

}  // namespace

void mma_dgrad(OpName op, const ConvShape& shape, Math math, const float* dy, const float* w,
               const float* relu_mask, float* dx, Workspace workspace, Stream stream) {
  const int group_c = shape.c / shape.groups, group_k = shape.k / shape.groups;
  // The taps of a class are known to the host where there is one class.
  const bool one_class = shape.stride_h == 1 && shape.stride_w == 1;
  const KOrder order = k_order(group_k, one_class ? shape.r * shape.s : 1);
  Call call{op,    {dgrad_parameters(shape), order}, mma_plan(shape, Pass::kDgrad, math), dy, w, dx,
            stream};
  float* partials = partials_in(op, call.plan.workspace_floats(), workspace);
  const Epilogue epilogue{nullptr, relu_mask, false};
  if (partials == nullptr) call.parameters.epilogue = epilogue;
  if (partials != nullptr) call.dx = partials;
  call.parameters.vector_out =
      group_c % 4 == 0 && aligned16(call.dx) && call.parameters.epilogue.aligned();
  const bool vector = group_c % 4 == 0 && group_k % 4 == 0 && aligned16(dy) && aligned16(w);

  with_math(math, [&](auto mode) { run_with<decltype(mode)::value>(call, vector); });
  if (partials != nullptr) {
    sum_splits(op, partials, call.plan.splits, call.plan.outputs, shape.c, epilogue, dx, stream);
  }
}

}  // namespace convnet
