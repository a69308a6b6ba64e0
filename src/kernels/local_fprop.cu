// Locally connected layer, forward: a convolution whose filters differ from place to place (ops.h).
//   y[n,p,q,k] = relu(b[p,q,k] + sum_{r,s,c} x[n,h,w, g C/G + c] w[p,q,k,r,s,c]),   g = k / (K/G)
//   h = p stride_h - pad_h + r,   w = q stride_w - pad_w + s
// Zeros where (h, w) is outside x. In local.cuh's words, for a place and group:
//   C[m, j] = sum_i A[m, i] B[j, i]:   m = n,  j = k,  i = (r,s,c)
//
// Tensors:  x [N,H,W,C], w [P,Q,K,R,S,C/G], b [P,Q,K] or null read; y [N,P,Q,K] written; x and y
//           float32 or bfloat16, T.
// Mapping:  a block computes 64 images x 32 filters of one place and group (gemm/simt.cuh). A is
//           read from x (gemm/operands.cuh), with the same window in all rows.
// Edges:    reads beyond the image and beyond a size are zeros. Loads of four where C/G is a
//           multiple of it and arrays are aligned to as many.
// Limits:   2 N P Q K R S C/G operations. Every filter is read once for 64 images: with fewer, the
//           memory for w limits.
#include "device/launch.h"
#include "device/vectors.h"
#include "local.cuh"
#include "ops.h"

namespace convnet {
namespace {

// B[j, i]: the filters of one place and group as they lie in memory.
template <class Loop>
class PlaceFilters : public Loop::template AlongK<Loop::kN, float> {
  using Base = typename Loop::template AlongK<Loop::kN, float>;

 public:
  __device__ PlaceFilters(const float* w, const LocalIndex& local, const Work& work)
      : w_(w + std::size_t{work.place * local.shape.k + work.group * local.group_k} *
                   local.taps.length),
        first_(work.first_column),
        filters_(local.columns),
        length_(local.taps.length) {}

  template <class Take>
  __device__ void each(unsigned first_k, const Take& take) const {
    const unsigned k = first_k + Base::k();
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned filter = first_ + Base::row(load);
      take(load, w_ + (filter * length_ + k), filter < filters_ && k < length_);
    }
  }

 private:
  const float* w_;
  unsigned first_, filters_, length_;
};

template <class Loop, class T>
__global__ void __launch_bounds__(Loop::kThreads, kLocalBlocks)
    local_fprop_kernel(const LocalIndex local, const T* x, const float* w, const float* b,
                       bool relu, T* y) {
  const ConvShape& s = local.shape;
  const Work work = block_work<Loop>(local);
  using A = PixelRows<Loop, 1, T>;
  using B = PlaceFilters<Loop>;
  A pixels(x, local.taps);
  const unsigned top = work.place / s.q * s.stride_h - s.pad_h;
  const unsigned left = work.place % s.q * s.stride_w - s.pad_w;
#pragma unroll
  for (int load = 0; load < A::kLoads; ++load) {
    const unsigned n = work.first_row + A::row(load);
    if (n < local.rows) {
      pixels.begin_row(load, n, top, left, work.group * local.group_c);
    } else {
      pixels.skip_row(load);
    }
  }
  B filters(w, local, work);
  typename Loop::Product product;
  NothingElse also;
  Loop::multiply(pixels, filters, 0, steps_for(local.taps.length), product, also);
  const unsigned channel = work.place * s.k + work.group * local.group_k;
  const unsigned pitch = local.y_image;
  store_tile<typename Loop::template Sums<A, B>>(
      product.sums, output_of(local, work, y, Epilogue<T>{b, nullptr, relu}, channel),
      [=](unsigned n) { return n * pitch + channel; }, SameColumns{local.columns});
}

using ImageTile = Tile<64, 32, 4>;  // rows are images

}  // namespace

template <class T>
void local_fprop(const ConvShape& shape, const T* x, const float* w, const float* b, bool relu,
                 T* y, Stream stream) {
  LocalIndex local = make_local<ImageTile>(shape, shape.n, shape.k / shape.groups);
  local.vector_out = local.group_k % 4 == 0 && aligned4(y);
  const dim3 grid = grid_of(local, shape.p * shape.q), block(ImageTile::kThreads);
  if (local.group_c % 4 == 0 && aligned4(x) && aligned4(w)) {
    launch("local_fprop", local_fprop_kernel<SimtLoop<ImageTile, true>, T>, grid, block, 0, stream,
           local, x, w, b, relu, y);
  } else {
    launch("local_fprop", local_fprop_kernel<SimtLoop<ImageTile, false>, T>, grid, block, 0, stream,
           local, x, w, b, relu, y);
  }
}

CONVNET_FOR_BOTH_TYPES(local_fprop);

}  // namespace convnet
