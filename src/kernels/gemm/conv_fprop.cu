// Convolution, forward, as one matrix product per group (implicit GEMM).
//
//   y[n,p,q,k] = relu(b[k] + sum_{r,s,c} x[n, p stride_h - pad_h + r, q stride_w - pad_w + s, gC +
//   c]
//                                        w[k,r,s,c])        (ops.h; g C is the group's first
//                                        channel)
//   C[m, j] = sum_i A[m, i] B[j, i]:   m = (n,p,q),  j = filter of the group,  i = (r,s,c)
//
// Tensors: x [N,H,W,C], w [K,R,S,C/G], b [K] or null: read. y [N,P,Q,K]: written.
// Mapping: a block computes a tile of pixels x filters (simt.cuh), and with splits a part of the
// sum over i (epilogue.cuh). A is never formed: gather.cuh reads its elements from x. Ragged edges:
// places beyond the image, rows past the last pixel, filters past the last and i past R S C/G are
// read as zeros; only pixels and filters that exist are stored. Any shape that ops.h allows will
// do; 128-bit loads need C/G to be a multiple of 4 and aligned arrays.
// Cost: 2 N P Q K R S C/G flops; x is read about K/G / tile columns times, mostly from L2.
#include "conv.cuh"
#include "gather.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/vectors.h"
#include "kernels/dropout.cuh"
#include "mma_plan.cuh"
#include "wgmma_plan.cuh"

namespace convnet {
namespace {

// B[j, i]: the filters of a group as they lie in memory.
template <class T, bool kVector>
class Filters : public AlongK<T::kN, T::kThreads, kVector> {
  using Base = AlongK<T::kN, T::kThreads, kVector>;

 public:
  // `filters` are left from `w` on, each of `length` elements.
  __device__ Filters(const float* w, unsigned first, unsigned filters, unsigned length)
      : w_(w), first_(first), filters_(filters), length_(length) {}

  __device__ void fetch(unsigned first_k) {
    const unsigned k = first_k + Base::k();
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned filter = first_ + Base::row(load);
      read(this->values[load], w_, filter * length_ + k, filter < filters_ && k < length_);
    }
  }

 private:
  const float* w_;
  unsigned first_, filters_, length_;
};

struct FpropParameters {
  Plan plan;
  ConvShape shape;
  Taps taps;
  Epilogue epilogue;
  DropoutDraw draw;  // wanted for dense layers only, and not where there are splits
  bool vector_out;
};

template <class T, bool kVector>
__global__ void __launch_bounds__(T::kThreads, T::blocks(kVector))
    conv_fprop_kernel(const FpropParameters parameters, const float* x, const float* w, float* y) {
  const ConvShape& s = parameters.shape;
  const TileCoord coord = block_coord(parameters.plan);
  const unsigned group_k = s.k / s.groups, rows = s.n * s.p * s.q;
  const unsigned first_row = coord.tile_m * T::kM, first_filter = coord.tile_n * T::kN;

  using Pixels = PixelRows<T, kVector, 1>;
  Pixels pixels(x, parameters.taps);
#pragma unroll
  for (int load = 0; load < Pixels::kLoads; ++load) {
    const unsigned row = first_row + Pixels::row(load);
    const unsigned line = row / s.q, q = row % s.q, n = line / s.p, p = line % s.p;
    if (row < rows) {
      pixels.begin_row(load, n, p * s.stride_h - s.pad_h, q * s.stride_w - s.pad_w,
                       coord.product * (s.c / s.groups));
    } else {
      pixels.skip_row(load);
    }
  }
  const unsigned length = parameters.taps.length;
  Filters<T, kVector> filters(w + coord.product * group_k * length, first_filter, group_k, length);

  float sum[T::kThreadM][T::kThreadN];
  const KRange range = split_range(parameters.plan, coord.split, length);
  OnlyMultiply also;
  multiply<T>(pixels, filters, range.begin, range.end, sum, also);

  Output output{};
  output.out = y + std::size_t{coord.split} * parameters.plan.outputs;
  output.first_row = first_row;
  output.first_column = first_filter;
  output.rows = rows;
  output.columns = group_k;
  output.first_channel = coord.product * group_k;
  output.vector = parameters.vector_out;
  output.epilogue = parameters.epilogue;
  const unsigned pitch = s.k, first_channel = output.first_channel;
  store_tile<T>(sum, output, [=](unsigned row) { return row * pitch + first_channel; });
  if (parameters.draw.wanted) {
    drop_tile<T::kM, T::kN, T::kThreads>(parameters.draw, y, first_row, rows, first_filter,
                                         group_k);
  }
}

template <class T, bool kVector>
void run(OpName op, const FpropParameters& parameters, const float* x, const float* w, float* y,
         Stream stream) {
  launch(op, conv_fprop_kernel<T, kVector>, parameters.plan.grid(), dim3(T::kThreads), 0, stream,
         parameters, x, w, y);
}

void check_aligned(OpName op, const char* argument, const void* data) {
  if (reinterpret_cast<std::uintptr_t>(data) % 16 == 0) return;
  fail(op.name, argument, "memory aligned to 16 bytes", "memory that is not");
}

}  // namespace

void conv_fprop_as(OpName op, const ConvShape& shape, Math math, const float* x, const float* w,
                   const float* b, bool relu, float* y, Workspace workspace, Stream stream,
                   const DropoutRule* rule) {
  const bool aligned = aligned16(x) && aligned16(y);
  if (rule == nullptr && wgmma_takes(op, shape, Pass::kFprop, math, aligned)) {
    const auto* filters = wgmma_filters(op, shape, Pass::kFprop, math, w, workspace, stream);
    wgmma_conv(op, shape, Pass::kFprop, math, x, filters, {b, nullptr, relu}, y, stream);
    return;
  }
  if (mma_serves(shape, Pass::kFprop, math) && device_has_mma(op)) {
    const float* filters = mma_filters(op, shape, w, &workspace, stream);
    mma_fprop(op, shape, math, x, filters, b, relu, y, workspace, stream, rule);
    return;
  }
  const unsigned group_c = shape.c / shape.groups, group_k = shape.k / shape.groups;
  FpropParameters parameters{};
  const Plan plan = parameters.plan = conv_plan(shape, Pass::kFprop);
  parameters.shape = shape;
  parameters.taps.height = shape.h;
  parameters.taps.width = shape.w;
  parameters.taps.pitch = shape.c;
  parameters.taps.length = shape.r * shape.s * group_c;
  parameters.taps.by_channels = FastDivmod(group_c);
  parameters.taps.by_width = FastDivmod(shape.s);

  float* partials = partials_in(op, plan.workspace_floats(), workspace);
  const Epilogue epilogue{b, nullptr, relu};
  const DropoutDraw draw = rule == nullptr ? DropoutDraw{} : dropout_draw(*rule);
  if (partials == nullptr) {
    parameters.epilogue = epilogue;
    parameters.draw = draw;
  }
  float* out = partials == nullptr ? y : partials;
  const bool vector = group_c % 4 == 0 && aligned16(x) && aligned16(w);
  parameters.vector_out = group_k % 4 == 0 && aligned16(out);

  if (plan.tile == TileKind::kLarge && vector) {
    run<LargeTile, true>(op, parameters, x, w, out, stream);
  } else if (plan.tile == TileKind::kLarge) {
    run<LargeTile, false>(op, parameters, x, w, out, stream);
  } else if (plan.tile == TileKind::kMedium && vector) {
    run<MediumTile, true>(op, parameters, x, w, out, stream);
  } else if (plan.tile == TileKind::kMedium) {
    run<MediumTile, false>(op, parameters, x, w, out, stream);
  } else if (vector) {
    run<NarrowTile, true>(op, parameters, x, w, out, stream);
  } else {
    run<NarrowTile, false>(op, parameters, x, w, out, stream);
  }
  if (partials != nullptr && draw.wanted) {
    sum_splits_and_drop(op, partials, plan.splits, plan.outputs, shape.k, epilogue, draw, y,
                        stream);
  } else if (partials != nullptr) {
    sum_splits(op, partials, plan.splits, plan.outputs, shape.k, epilogue, y, stream);
  }
}

std::int64_t conv_prepared_bytes(const ConvShape& shape, Math math) {
  const OpName op = "conv_prepared_bytes";
  if (wgmma_takes(op, shape, Pass::kFprop, math)) {
    return wgmma_plan(shape, Pass::kFprop, math).filter_bytes;
  }
  const bool by_mma = mma_serves(shape, Pass::kFprop, math) && device_has_mma(op);
  return by_mma ? 4 * filled_floats(shape) : 0;
}

std::int64_t conv_prepared_workspace(const ConvShape& shape, Math math) {
  if (wgmma_takes("conv_prepared_workspace", shape, Pass::kFprop, math)) return 0;
  const std::int64_t floats = mma_plan(shape, Pass::kFprop, math).workspace_floats();
  return floats == 0 ? 0 : floats * 4 + 16;
}

void conv_prepare(const ConvShape& shape, Math math, const float* w, Workspace prepared, Workspace,
                  Stream stream) {
  const OpName op = "conv_prepare";
  check_aligned(op, "prepared", prepared.data);
  if (wgmma_takes(op, shape, Pass::kFprop, math)) {
    wgmma_filters(op, shape, Pass::kFprop, math, w, prepared, stream);
  } else {
    mma_filters(op, shape, w, &prepared, stream);
  }
}

template <>
void conv_fprop_prepared(const ConvShape& shape, Math math, const float* x, Workspace prepared,
                         const float* b, bool relu, float* y, Workspace workspace, Stream stream) {
  const OpName op = "conv_fprop_prepared";
  check_dims(op.name, "prepared", {prepared.bytes}, {conv_prepared_bytes(shape, math)});
  check_aligned(op, "x", x);
  check_aligned(op, "prepared", prepared.data);
  check_aligned(op, "y", y);
  if (wgmma_takes(op, shape, Pass::kFprop, math)) {
    const auto* filters = static_cast<const unsigned char*>(prepared.data);
    wgmma_conv(op, shape, Pass::kFprop, math, x, filters, {b, nullptr, relu}, y, stream);
  } else {
    const auto* filters = static_cast<const float*>(prepared.data);
    mma_fprop(op, shape, math, x, filters, b, relu, y, workspace, stream);
  }
}

template <>
void conv_fprop(const ConvShape& shape, Math math, const float* x, const float* w, const float* b,
                bool relu, float* y, Workspace workspace, Stream stream) {
  conv_fprop_as("conv_fprop", shape, math, x, w, b, relu, y, workspace, stream);
}

}  // namespace convnet
