// Convolution, gradient of the input, as matrix products (implicit GEMM) that gather from dy.
//
//   dx[n,h,w,c] = sum_{r,s,k} dy[n,p,q,k] w[k,r,s,c]   over the taps with p stride_h = h + pad_h -
//   r
//                                                      and q stride_w = w + pad_w - s
//   and 0 where relu_mask[n,h,w,c] <= 0.               (the transpose of ops.h's convolution)
//
// With strides most taps of a pixel have no p or q. Which ones do depends on h mod stride_h and
// w mod stride_w only, so pixels are taken apart into such classes (a, b), and each class is a
// product of its own, in which every tap counts:
//   h = a + stride_h i,  r = r0 + stride_h t,  p = p0 + i - t   with  r0 = (a + pad_h) mod
//   stride_h,
//                                                               p0 = (a + pad_h - r0) / stride_h
// and the same for w, s, q. There are min(stride_h, H) min(stride_w, W) classes; with stride 1,
// one.
//   C[m, j] = sum_l A[m, l] B[j, l]:   m = (n,i,i'),  j = channel of the group,  l = (t,t',k)
//
// Tensors: dy [N,P,Q,K], w [K,R,S,C/G], relu_mask [N,H,W,C] or null: read. dx [N,H,W,C]: written.
// Mapping: a block computes a tile of pixels x channels of one group and class (simt.cuh), and with
// splits a part of the sum (epilogue.cuh). A is gather.cuh's, walking back over dy.
// Ragged edges: all as in conv_fprop.cu. Pixels that no window saw, and classes without a tap, get
// 0. 128-bit loads need C/G and K/G to be multiples of 4 and aligned arrays.
// Cost: 2 N P Q K R S C/G flops, less what falls beyond the image, plus ragged tiles of each class.
#include "dgrad.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/vectors.h"
#include "mma_plan.cuh"
#include "wgmma_plan.cuh"

namespace convnet {
namespace {

// B[j, l] = w[k, tap, j]: the filters, read across.
template <class T, bool kVector>
class TransposedFilters : public AlongRows<T::kN, T::kThreads, kVector> {
  using Base = AlongRows<T::kN, T::kThreads, kVector>;

 public:
  __device__ TransposedFilters(const float* w, const ConvShape& shape, const Taps& taps, Axis rows,
                               Axis columns, unsigned first_channel)
      : w_(w),
        shape_(shape),
        taps_(taps),
        channels_(shape.c / shape.groups),
        first_channel_(first_channel),
        first_tap_(rows.first_tap * shape.s + columns.first_tap) {}

  __device__ void fetch(unsigned first_k) {
    const unsigned l = first_k + Base::k();
    unsigned tap = l;
    const unsigned filter = taps_.by_channels.split(&tap);
    const unsigned u = taps_.by_width.split(&tap);
    const unsigned place = first_tap_ + tap * shape_.stride_h * shape_.s + u * shape_.stride_w;
    const unsigned start = (filter * (shape_.r * shape_.s) + place) * channels_;
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned channel = first_channel_ + Base::row(load);
      read(this->values[load], w_, start + channel, l < taps_.length && channel < channels_);
    }
  }

 private:
  const float* w_;
  const ConvShape& shape_;
  const Taps& taps_;
  unsigned channels_, first_channel_, first_tap_;
};

template <class T, bool kVector>
__global__ void __launch_bounds__(T::kThreads, T::blocks(kVector))
    conv_dgrad_kernel(const DgradParameters parameters, const float* dy, const float* w,
                      float* dx) {
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

  using Pixels = PixelRows<T, kVector, -1>;
  Pixels pixels(dy, taps);
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
  TransposedFilters<T, kVector> filters(w + group * group_k * (s.r * s.s * group_c), s, taps, v, h,
                                        first_channel);

  float sum[T::kThreadM][T::kThreadN];
  const KRange range = split_range(parameters.plan, coord.split, taps.length);
  OnlyMultiply also;
  multiply<T>(pixels, filters, range.begin, range.end, sum, also);

  Output output{};
  output.out = dx + std::size_t{coord.split} * parameters.plan.outputs;
  output.first_row = first_row;
  output.first_column = first_channel;
  output.rows = rows;
  output.columns = group_c;
  output.vector = parameters.vector_out;
  output.epilogue = parameters.epilogue;
  store_tile<T>(sum, output, [&](unsigned row) {
    const unsigned line = row / h.count;
    const unsigned y = line / v.count * s.h + v.first + line % v.count * s.stride_h;
    return (y * s.w + h.first + row % h.count * s.stride_w) * s.c + group * group_c;
  });
}

template <class T, bool kVector>
void run(OpName op, const DgradParameters& parameters, const float* dy, const float* w, float* dx,
         Stream stream) {
  launch(op, conv_dgrad_kernel<T, kVector>, parameters.plan.grid(), dim3(T::kThreads), 0, stream,
         parameters, dy, w, dx);
}

}  // namespace

void conv_dgrad_as(OpName op, const ConvShape& shape, Math math, const float* dy, const float* w,
                   const float* relu_mask, float* dx, Workspace workspace, Stream stream) {
  if (wgmma_takes(op, shape, Pass::kDgrad, math,
                  aligned16(dy) && aligned16(dx) && aligned16(relu_mask))) {
    const auto* filters = wgmma_filters(op, shape, Pass::kDgrad, math, w, workspace, stream);
    wgmma_conv(op, shape, Pass::kDgrad, math, dy, filters, {nullptr, relu_mask, false}, dx, stream);
    return;
  }
  if (mma_serves(shape, Pass::kDgrad, math) && device_has_mma(op)) {
    mma_dgrad(op, shape, math, dy, w, relu_mask, dx, workspace, stream);
    return;
  }
  const int group_c = shape.c / shape.groups, group_k = shape.k / shape.groups;
  DgradParameters parameters = dgrad_parameters(shape);
  parameters.plan = conv_plan(shape, Pass::kDgrad);
  const Plan& plan = parameters.plan;
  float* partials = partials_in(op, plan.workspace_floats(), workspace);
  const Epilogue epilogue{nullptr, relu_mask, false};
  if (partials == nullptr) parameters.epilogue = epilogue;
  float* out = partials == nullptr ? dx : partials;
  parameters.vector_out = group_c % 4 == 0 && aligned16(out) && parameters.epilogue.aligned();
  const bool vector = group_c % 4 == 0 && group_k % 4 == 0 && aligned16(dy) && aligned16(w);

  if (plan.tile == TileKind::kLarge && vector) {
    run<LargeTile, true>(op, parameters, dy, w, out, stream);
  } else if (plan.tile == TileKind::kLarge) {
    run<LargeTile, false>(op, parameters, dy, w, out, stream);
  } else if (plan.tile == TileKind::kMedium && vector) {
    run<MediumTile, true>(op, parameters, dy, w, out, stream);
  } else if (plan.tile == TileKind::kMedium) {
    run<MediumTile, false>(op, parameters, dy, w, out, stream);
  } else if (vector) {
    run<NarrowTile, true>(op, parameters, dy, w, out, stream);
  } else {
    run<NarrowTile, false>(op, parameters, dy, w, out, stream);
  }
  if (partials != nullptr) {
    sum_splits(op, partials, plan.splits, plan.outputs, shape.c, epilogue, dx, stream);
  }
}

template <>
void conv_dgrad(const ConvShape& shape, Math math, const float* dy, const float* w,
                const float* relu_mask, float* dx, Workspace workspace, Stream stream) {
  conv_dgrad_as("conv_dgrad", shape, math, dy, w, relu_mask, dx, workspace, stream);
}

}  // namespace convnet
