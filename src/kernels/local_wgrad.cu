// Locally connected layer, gradients of filters and biases (ops.h).
//   dw[p,q,k,r,s,c] = sum_n dy[n,p,q,k] x[n,h,w, g C/G + c],   g = k / (K/G)
//   h = p stride_h - pad_h + r,   w = q stride_w - pad_w + s;   db[p,q,k] = sum_n dy[n,p,q,k]
// Zeros where (h, w) is outside x. In local.cuh's words, for a place and group:
//   C[m, j] = sum_i A[m, i] B[j, i]:   m = k,  j = (r,s,c),  i = n
//
// Tensors:  x [N,H,W,C], dy [N,P,Q,K] read, float32 or bfloat16, T; dw [P,Q,K,R,S,C/G], db [P,Q,K]
//           (may be null) written.
// Mapping:  a block computes 32 filters x 64 elements of their windows, of one place and group
//           (gemm/simt.cuh), and adds up the images in order. db: a thread an element, in a launch
//           of its own.
// Edges:    reads beyond the image and beyond a size are zeros. Loads of four where C/G and
//           K/G are multiples of it and arrays are aligned to as many.
// Limits:   2 N P Q K R S C/G operations; with few images, writing dw.
#include "device/launch.h"
#include "device/vectors.h"
#include "local.cuh"
#include "ops.h"
#include "warp.cuh"

namespace convnet {
namespace {

// A[k, n]: the gradients of one place and group.
template <class Loop, class T>
class PlaceGradients : public Loop::template AlongRows<Loop::kM, T> {
  using Base = typename Loop::template AlongRows<Loop::kM, T>;

 public:
  __device__ PlaceGradients(const T* dy, const LocalIndex& local, const Work& work)
      : dy_(dy + work.place * local.shape.k + work.group * local.group_k),
        first_(work.first_row),
        filters_(local.rows),
        images_(local.shape.n),
        image_(local.y_image) {}

  template <class Take>
  __device__ void each(unsigned first_k, const Take& take) const {
    const unsigned n = first_k + Base::k();
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned filter = first_ + Base::row(load);
      take(load, dy_ + (n * image_ + filter), filter < filters_ && n < images_);
    }
  }

 private:
  const T* dy_;
  unsigned first_, filters_, images_, image_;
};

// B[(r,s,c), n]: the window of one place and group. Where its elements lie is the same for all n.
template <class Loop, class T>
class Window : public Loop::template AlongRows<Loop::kN, T> {
  using Base = typename Loop::template AlongRows<Loop::kN, T>;

 public:
  __device__ Window(const T* x, const LocalIndex& local, const Work& work)
      : x_(x), images_(local.shape.n), image_(local.x_image) {
    const ConvShape& s = local.shape;
    const unsigned top = work.place / s.q * s.stride_h - s.pad_h;
    const unsigned left = work.place % s.q * s.stride_w - s.pad_w;
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      unsigned tap = work.first_column + Base::row(load);
      const bool exists = tap < local.columns;
      const unsigned channel = local.taps.order.by_channels.split(&tap);
      const unsigned w = left + local.taps.by_width.split(&tap), h = top + tap;
      // Places above or left of the image wrap to numbers beyond any size.
      valid_[load] = exists && h < local.taps.height && w < local.taps.width;
      offset_[load] = (h * s.w + w) * s.c + work.group * local.group_c + channel;
    }
  }

  template <class Take>
  __device__ void each(unsigned first_k, const Take& take) const {
    const unsigned n = first_k + Base::k();
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      take(load, x_ + (n * image_ + offset_[load]), valid_[load] && n < images_);
    }
  }

 private:
  const T* x_;
  unsigned images_, image_;
  unsigned offset_[Base::kLoads];
  bool valid_[Base::kLoads];
};

template <class Loop, class T>
__global__ void __launch_bounds__(Loop::kThreads, kLocalBlocks)
    local_wgrad_kernel(const LocalIndex local, const T* x, const T* dy, float* dw) {
  const Work work = block_work<Loop>(local);
  using A = PlaceGradients<Loop, T>;
  using B = Window<Loop, T>;
  A gradients(dy, local, work);
  B window(x, local, work);
  typename Loop::Product product;
  NothingElse also;
  Loop::multiply(gradients, window, 0, steps_for(local.shape.n), product, also);
  const unsigned filter = work.place * local.shape.k + work.group * local.group_k;
  const unsigned length = local.taps.length;
  store_tile<typename Loop::template Sums<A, B>>(
      product.sums, output_of(local, work, dw, Epilogue<float>{}, 0),
      [=](unsigned k) { return (filter + k) * length; }, SameColumns{local.columns});
}

// db[i] = the sum over n of dy[n, i].
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    local_bias_kernel(int images, unsigned count, const T* __restrict__ dy,
                      float* __restrict__ db) {
  const unsigned i = global_thread();
  if (i >= count) return;
  float sum = 0.0f;
  for (int n = 0; n < images; ++n) sum += load(dy + std::size_t{count} * n + i);
  db[i] = sum;
}

using FilterTile = Tile<32, 64, 4>;  // rows are filters

}  // namespace

template <class T>
void local_wgrad(const ConvShape& shape, const T* x, const T* dy, float* dw, float* db,
                 Stream stream) {
  const int depth = shape.r * shape.s * (shape.c / shape.groups);
  LocalIndex local = make_local<FilterTile>(shape, shape.k / shape.groups, depth);
  local.vector_out = depth % 4 == 0 && aligned4(dw);
  const dim3 grid = grid_of(local, shape.p * shape.q), block(FilterTile::kThreads);
  const bool fours = local.group_c % 4 == 0 && local.group_k % 4 == 0;
  if (fours && aligned4(x) && aligned4(dy)) {
    launch("local_wgrad", local_wgrad_kernel<SimtLoop<FilterTile, true>, T>, grid, block, 0, stream,
           local, x, dy, dw);
  } else {
    launch("local_wgrad", local_wgrad_kernel<SimtLoop<FilterTile, false>, T>, grid, block, 0,
           stream, local, x, dy, dw);
  }
  if (db != nullptr) {
    launch("local_wgrad", local_bias_kernel<T>, blocks_for(local.y_image), dim3(kBlockThreads), 0,
           stream, shape.n, local.y_image, dy, db);
  }
}

CONVNET_FOR_BOTH_TYPES(local_wgrad);

}  // namespace convnet
