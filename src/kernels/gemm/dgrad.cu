// Convolution, gradient of the input, as matrix products (implicit GEMM) that gather from dy.
//
//   dx[n,h,w,c] = sum_{r,s,k} dy[n,p,q,k] w[k,r,s,c]   over the taps with
//                                                      p stride_h = h + pad_h - r
//                                                      and q stride_w = w + pad_w - s
//   and 0 where relu_mask[n,h,w,c] <= 0.               (the transpose of ops.h's convolution)
//
// With strides most taps of a pixel have no p or q. Which ones do depends on h mod stride_h and
// w mod stride_w only, so pixels are taken apart into such classes (a, b), and each class is a
// product of its own, in which every tap counts:
//   h = a + stride_h i,  r = r0 + stride_h t,  p = p0 + i - t
//                                              with  r0 = (a + pad_h) mod stride_h,
//                                                    p0 = (a + pad_h - r0) / stride_h
// and the same for w, s, q. There are min(stride_h, H) min(stride_w, W) classes; with stride 1,
// one.
//   C[m, j] = sum_l A[m, l] B[j, l]:   m = (n,i,i'),  j = channel of the group,  l = (t,t',k)
//
// Tensors: dy [N,P,Q,K], w [K,R,S,C/G], relu_mask [N,H,W,C] or null: read. dx [N,H,W,C]: written.
// Mapping: a block computes a tile of pixels x channels of one group and class by its main loop
// (simt.cuh, mma.cuh), and with splits a part of the sum (splits.cuh). A walks back over dy; the
// filters are read across, as they lie (operands.cuh).
// Ragged edges: all as in fprop.cu. Pixels that no window saw, and classes without a tap, get 0.
// 16-byte loads and copies need C/G and K/G to be multiples of 4 and aligned arrays.
// Cost: 2 N P Q K R S C/G flops, less what falls beyond the image, plus ragged tiles of each class.
#include "gemm.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/vectors.h"
#include "operands.cuh"
#include "splits.cuh"
#include "tiles.cuh"

namespace convnet {
namespace {

// One axis of a class of pixels.
struct Axis {
  unsigned first, count;  // pixels first + stride i, i < count
  unsigned first_tap, taps,
      place;  // taps first_tap + stride t; tap 0 of pixel 0 is at `place` of dy
};

__device__ inline Axis class_axis(unsigned a, unsigned stride, unsigned pad, unsigned extent,
                                  unsigned filter) {
  Axis axis;
  axis.first = a;
  axis.count = (extent - a + stride - 1) / stride;
  axis.first_tap = (a + pad) % stride;
  axis.taps = axis.first_tap < filter ? (filter - axis.first_tap + stride - 1) / stride : 0;
  axis.place = (a + pad) / stride;
  return axis;
}

template <class T>
struct DgradParameters {
  TileGrid grid;
  ConvShape shape;
  Taps taps;  // of dy, but for what depends on the class: `length` and `by_width`
  unsigned classes_w, classes;
  unsigned most_taps_w;        // taps in a row: so many,
  FastDivmod by_fewer_taps_w;  // or in some classes one less
  Epilogue<T> epilogue;
  bool vector_out;
};

// What a block needs when its product is done: kept in shared memory meanwhile, as the product
// takes all registers.
struct ResultPlace {
  Axis v, h;
  unsigned group, first_row, first_channel, split;
};

template <class Loop, class T>
__global__ void __launch_bounds__(Loop::kThreads, Loop::kBlocks)
    conv_dgrad_kernel(const DgradParameters<T> parameters, const T* dy, const float* w,
                      Destination<T> dx) {
  if constexpr (Loop::kCompiled) {
    const ConvShape& s = parameters.shape;
    const TileCoord coord = block_coord(parameters.grid);
    const unsigned pixel_class = coord.product % parameters.classes;
    const unsigned group = coord.product / parameters.classes;
    const unsigned group_c = s.c / s.groups, group_k = s.k / s.groups;
    const unsigned first_row = coord.tile_m * Loop::kM, first_channel = coord.tile_n * Loop::kN;
    const Axis v = class_axis(pixel_class / parameters.classes_w, s.stride_h, s.pad_h, s.h, s.r);
    const Axis h = class_axis(pixel_class % parameters.classes_w, s.stride_w, s.pad_w, s.w, s.s);
    const unsigned rows = s.n * v.count * h.count;

    Taps taps = parameters.taps;
    taps.length = v.taps * h.taps * group_k;
    if (h.taps != parameters.most_taps_w) taps.by_width = parameters.by_fewer_taps_w;

    using A = PixelRows<Loop, -1, T>;
    using B = TransposedFilters<Loop>;
    A pixels(dy, taps);
#pragma unroll
    for (int load = 0; load < A::kLoads; ++load) {
      const unsigned row = first_row + A::row(load);
      const unsigned line = row / h.count;
      if (row < rows) {
        pixels.begin_row(load, line / v.count, v.place + line % v.count, h.place + row % h.count,
                         group * group_k);
      } else {
        pixels.skip_row(load);
      }
    }
    B filters(w + group * group_k * (s.r * s.s * group_c), s, taps, v.first_tap * s.s + h.first_tap,
              first_channel);

    __shared__ __align__(16) ResultPlace kept;
    if (threadIdx.x == 0) kept = {v, h, group, first_row, first_channel, coord.split};
    __syncthreads();
    typename Loop::Product product;
    const KRange range = split_range<Loop>(parameters.grid, coord.split, taps.length);
    NothingElse also;
    Loop::multiply(pixels, filters, range.begin, range.end, product, also);

    Output<T> output{};
    output.out = dx.from(std::size_t{kept.split} * parameters.grid.outputs);
    output.first_row = kept.first_row;
    output.first_column = kept.first_channel;
    output.rows = s.n * kept.v.count * kept.h.count;
    output.columns = s.c / s.groups;
    output.vector = parameters.vector_out;
    output.epilogue = {nullptr, parameters.epilogue.mask, false};  // known to the compiler
    const auto start = [&](unsigned row) {
      const unsigned line = row / kept.h.count;
      const unsigned y =
          line / kept.v.count * s.h + kept.v.first + line % kept.v.count * s.stride_h;
      return (y * s.w + kept.h.first + row % kept.h.count * s.stride_w) * s.c +
             kept.group * output.columns;
    };
    store_tile<typename Loop::template Sums<A, B>>(product.sums, output, start,
                                                   SameColumns{output.columns});
  }
}

// All but the grid and the epilogue.
template <class T>
DgradParameters<T> dgrad_parameters(const ConvShape& shape) {
  DgradParameters<T> parameters{};
  parameters.shape = shape;
  parameters.taps.height = shape.p;
  parameters.taps.width = shape.q;
  parameters.taps.pitch = shape.k;
  parameters.classes_w = class_count(shape.stride_w, shape.w);
  parameters.classes = class_count(shape.stride_h, shape.h) * parameters.classes_w;
  const int most = (shape.s + shape.stride_w - 1) / shape.stride_w;
  parameters.most_taps_w = most;
  parameters.taps.by_width = FastDivmod(most);
  parameters.by_fewer_taps_w = FastDivmod(most > 1 ? most - 1 : 1);
  // The taps of a class are known to the host where there is one class.
  const bool one_class = shape.stride_h == 1 && shape.stride_w == 1;
  parameters.taps.order = k_order(shape.k / shape.groups, one_class ? shape.r * shape.s : 1);
  return parameters;
}

}  // namespace

template <class T>
void gemm_dgrad(OpName op, const GemmPlan& plan, const T* dy, const float* w,
                const Epilogue<T>& epilogue, T* dx, Workspace workspace, Stream stream) {
  const ConvShape& s = plan.shape;
  const int group_c = s.c / s.groups, group_k = s.k / s.groups;
  DgradParameters<T> parameters = dgrad_parameters<T>(s);
  const SplitSums sums(op, plan, workspace);
  if (!sums.split()) parameters.epilogue = epilogue;
  const Destination<T> out = sums.destination(dx);
  parameters.vector_out = group_c % 4 == 0 && out.aligned() && parameters.epilogue.aligned();
  const bool vector =
      group_c % 4 == 0 && group_k % vector_width<T>(plan) == 0 && aligned4(dy) && aligned4(w);
  with_loop<Pass::kDgrad, T>(plan, vector, [&](auto loop) {
    using Loop = decltype(loop);
    parameters.grid = grid_of<Loop>(plan);
    launch(op, conv_dgrad_kernel<Loop, T>, parameters.grid.blocks(), dim3(Loop::kThreads),
           Loop::kSharedBytes, stream, parameters, dy, w, out);
  });
  if (sums.split()) {
    const SplitResult<T> result{sums.partials, plan.splits, plan.outputs, s.c, dx, epilogue};
    sum_splits(op, result, stream);
  }
}

template void gemm_dgrad(OpName, const GemmPlan&, const float*, const float*,
                         const Epilogue<float>&, float*, Workspace, Stream);
template void gemm_dgrad(OpName, const GemmPlan&, const Bfloat16*, const float*,
                         const Epilogue<Bfloat16>&, Bfloat16*, Workspace, Stream);

}  // namespace convnet
