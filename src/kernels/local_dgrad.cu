// Locally connected layer, gradient of the input (ops.h).
//   dx[n,h,w, g C/G + c] = mask(sum_{p,q,k} dy[n,p,q,k] w[p,q,k,r,s,c]),   k of group g, over all
//   windows (p,q) that hold (h,w):   r = h + pad_h - p stride_h,   s = w + pad_w - q stride_w
// In local.cuh's words, for a pixel (h,w) and group:
//   C[m, j] = sum_i A[m, i] B[j, i]:   m = n,  j = c,  i = (p,q,k), windows in row-major order
//
// Tensors:  dy [N,P,Q,K], w [P,Q,K,R,S,C/G], relu_mask [N,H,W,C] or null read; dx [N,H,W,C]
//           written: zero where relu_mask <= 0, and where no window comes. dy, relu_mask and dx are
//           float32 or bfloat16, T.
// Mapping:  a block computes 64 images x 32 channels of one pixel and group (gemm/simt.cuh): a
//           gather, so that nothing is added to memory and the order of the sum is fixed.
// Edges:    reads beyond the image and beyond a size are zeros. Loads of four where C/G and
//           K/G are multiples of it and arrays are aligned to as many.
// Limits:   2 N P Q K R S C/G operations; w is read once for 64 images.
#include "device/launch.h"
#include "device/vectors.h"
#include "local.cuh"
#include "ops.h"
#include "window.cuh"

namespace convnet {
namespace {

// The windows that hold one pixel, and from i to one of them.
struct CoveringWindows {
  int h, w;
  Span ps, qs;
  unsigned q_count, length;  // of the sum: windows * K/G

  __device__ CoveringWindows(const LocalIndex& local, unsigned pixel)
      : h(static_cast<int>(pixel / local.shape.w)), w(static_cast<int>(pixel % local.shape.w)) {
    const ConvShape& s = local.shape;
    ps = covering_span(h, local.by_stride_h, s.pad_h, s.r, s.p);
    qs = covering_span(w, local.by_stride_w, s.pad_w, s.s, s.q);
    q_count = static_cast<unsigned>(max(qs.end - qs.begin, 0));
    length = static_cast<unsigned>(max(ps.end - ps.begin, 0)) * q_count * local.group_k;
  }

  struct Term {
    int p, q;
    unsigned filter;  // of the group
  };
  __device__ Term at(const LocalIndex& local, unsigned i) const {
    unsigned window = i;
    const unsigned filter = static_cast<unsigned>(local.by_group_k.split(&window));
    return {ps.begin + static_cast<int>(window / q_count),
            qs.begin + static_cast<int>(window % q_count), filter};
  }
};

// A[n, i]: the gradients of one group at the windows.
template <class Loop, class T>
class Gradients : public Loop::template AlongK<Loop::kM, T> {
  using Base = typename Loop::template AlongK<Loop::kM, T>;

 public:
  __device__ Gradients(const T* dy, const LocalIndex& local, const Work& work,
                       const CoveringWindows& windows)
      : dy_(dy), local_(local), work_(work), windows_(windows) {}

  template <class Take>
  __device__ void each(unsigned first_k, const Take& take) const {
    const unsigned k = first_k + Base::k();
    unsigned offset = 0;
    if (k < windows_.length) {
      const CoveringWindows::Term term = windows_.at(local_, k);
      offset = (term.p * local_.shape.q + term.q) * local_.shape.k + work_.group * local_.group_k +
               term.filter;
    }
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned n = work_.first_row + Base::row(load);
      take(load, dy_ + (n * local_.y_image + offset), n < local_.rows && k < windows_.length);
    }
  }

 private:
  const T* dy_;
  const LocalIndex& local_;
  const Work& work_;
  const CoveringWindows& windows_;
};

// B[c, i]: the weights between channel c of the pixel and the filters of the windows.
template <class Loop>
class WindowWeights : public Loop::template AlongRows<Loop::kN, float> {
  using Base = typename Loop::template AlongRows<Loop::kN, float>;

 public:
  __device__ WindowWeights(const float* w, const LocalIndex& local, const Work& work,
                           const CoveringWindows& windows)
      : w_(w), local_(local), work_(work), windows_(windows) {}

  template <class Take>
  __device__ void each(unsigned first_k, const Take& take) const {
    const ConvShape& s = local_.shape;
    const unsigned k = first_k + Base::k();
    unsigned offset = 0;
    if (k < windows_.length) {
      const CoveringWindows::Term term = windows_.at(local_, k);
      const unsigned place = term.p * s.q + term.q;
      const unsigned filter = place * s.k + work_.group * local_.group_k + term.filter;
      const int tap_h = windows_.h + s.pad_h - term.p * s.stride_h;
      const int tap_w = windows_.w + s.pad_w - term.q * s.stride_w;
      offset = filter * local_.taps.length + (tap_h * s.s + tap_w) * local_.group_c;
    }
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned channel = work_.first_column + Base::row(load);
      take(load, w_ + (offset + channel), channel < local_.columns && k < windows_.length);
    }
  }

 private:
  const float* w_;
  const LocalIndex& local_;
  const Work& work_;
  const CoveringWindows& windows_;
};

template <class Loop, class T>
__global__ void __launch_bounds__(Loop::kThreads, kLocalBlocks)
    local_dgrad_kernel(const LocalIndex local, const T* dy, const float* w, const T* relu_mask,
                       T* dx) {
  const Work work = block_work<Loop>(local);
  const CoveringWindows windows(local, work.place);
  using A = Gradients<Loop, T>;
  using B = WindowWeights<Loop>;
  A gradients(dy, local, work, windows);
  B weights(w, local, work, windows);
  typename Loop::Product product;
  NothingElse also;
  Loop::multiply(gradients, weights, 0, steps_for(windows.length), product, also);
  const unsigned start = work.place * local.shape.c + work.group * local.group_c;
  const unsigned pitch = local.x_image;
  store_tile<typename Loop::template Sums<A, B>>(
      product.sums, output_of(local, work, dx, Epilogue<T>{nullptr, relu_mask, false}, 0),
      [=](unsigned n) { return n * pitch + start; }, SameColumns{local.columns});
}

using ImageTile = Tile<64, 32, 4>;  // rows are images

}  // namespace

template <class T>
void local_dgrad(const ConvShape& shape, const T* dy, const float* w, const T* relu_mask, T* dx,
                 Stream stream) {
  LocalIndex local = make_local<ImageTile>(shape, shape.n, shape.c / shape.groups);
  local.vector_out = local.group_c % 4 == 0 && aligned4(dx) && aligned4(relu_mask);
  const dim3 grid = grid_of(local, shape.h * shape.w), block(ImageTile::kThreads);
  const bool fours = local.group_c % 4 == 0 && local.group_k % 4 == 0;
  if (fours && aligned4(dy) && aligned4(w)) {
    launch("local_dgrad", local_dgrad_kernel<SimtLoop<ImageTile, true>, T>, grid, block, 0, stream,
           local, dy, w, relu_mask, dx);
  } else {
    launch("local_dgrad", local_dgrad_kernel<SimtLoop<ImageTile, false>, T>, grid, block, 0, stream,
           local, dy, w, relu_mask, dx);
  }
}

CONVNET_FOR_BOTH_TYPES(local_dgrad);

}  // namespace convnet
