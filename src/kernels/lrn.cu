// Local response normalization across channels (paper, section 3.3).
//   s_i = k + alpha * sum_{j in window(i)} x_j^2,   window(i) = i - n/2 .. i - n/2 + n - 1
//   y_i = x_i * s_i^-beta
//   dx_i = dy_i s_i^-beta - 2 alpha beta x_i sum_{j : i in window(j)} dy_j x_j s_j^(-beta-1)
// both windows clipped to the group of i.
//
// Tensors:  x, dy [pixels, C] read, y, dx [pixels, C] written; float32 or bfloat16. s is computed
//           again backward.
// Mapping:  two ways for each pass.
//   by warps   n of 3 or 5, C / groups a multiple of four, arrays aligned to as many. A lane holds
//              four channels, with one load an array, and gets the neighbours that its
//              windows reach into from the lanes beside it by shuffles: 2 each way for n = 5. The
//              tensor is one line of fours, of which a warp takes 32. Where 32 is not a whole
//              number of groups, warps overlap by a lane at each end, whose results are dropped: a
//              halo that comes from the L1 cache. One lane is enough backward too, as a result
//              depends on no more than n - 1 <= 4 channels to either side. No shared memory, no
//              barriers.
//   by blocks  everything else. Forward a thread takes an element and adds up its window from the
//              L1 cache. Backward a block takes kTile elements: it computes the terms of the inner
//              sum for those and for as far as windows reach, kPiece at a time, in 8 KB of shared
//              memory, between two barriers a piece, and every thread adds what it needs in order.
// Limits:   8 bytes an element forward and 12 backward, half of it in bfloat16, and for beta = 3/4 about 37 and 53
//           instructions: by warps, limited by memory. By blocks n (backward 3 n) reads an element
//           from the cache come on top. Another beta costs a powf().
#include "device/launch.h"
#include "device/vectors.h"
#include "lrn.cuh"

namespace convnet {
namespace {

template <class T>
struct Array {
  static constexpr bool kLate = false;
  const T* dy;

  __device__ Floats<4> four(int four) const { return load_floats<4>(dy + 4 * four); }
  __device__ float one(unsigned i) const { return load(dy + i); }
};

template <int kWindow, class T>
__global__ void __launch_bounds__(kBlockThreads)
    lrn_fprop_warp_kernel(Line line, const T* __restrict__ x, T* __restrict__ y) {
  constexpr int kLeft = kWindow / 2, kRight = kWindow - 1 - kLeft;
  const Lane lane = lane_of(line);
  Floats<4> values = all_floats<4>(0.0f);
  if (lane.inside) values = load_floats<4>(x + 4 * lane.four);
  const Floats<4> sums = window_sums<kLeft, kRight>(lane, squares(values));
  const Floats<4> power = powers(scales(line.k, line.alpha, sums), line.beta).main;
  for (int i = 0; i < 4; ++i) values.v[i] *= power.v[i];
  if (lane.writes) store_floats(y + 4 * lane.four, values);
}

template <int kWindow, class T>
__global__ void __launch_bounds__(kBlockThreads)
    lrn_bprop_warp_kernel(Line line, const T* __restrict__ x, const T* __restrict__ dy,
                          T* __restrict__ dx) {
  lrn_bprop_lane<kWindow>(line, x, Array<T>{dy}, false, dx);
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    lrn_fprop_kernel(Rows rows, const T* __restrict__ x, T* __restrict__ y) {
  const unsigned i = global_thread();
  if (i < rows.count) store(y + i, load(x + i) * powers_at(rows, x, i).main.v[0]);
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    lrn_bprop_kernel(Rows rows, const T* __restrict__ x, const T* __restrict__ dy,
                     T* __restrict__ dx) {
  lrn_bprop_tile(rows, x, Array<T>{dy}, false, dx);
}

}  // namespace

template <class T>
void lrn_fprop(const LrnShape& shape, const T* x, T* y, Stream stream) {
  const char* op = "lrn_fprop";
  const dim3 block(kBlockThreads);
  if (fits_warps(shape) && aligned4(x) && aligned4(y)) {
    const Line line = make_line(shape);
    if (shape.n == 5) {
      launch(op, lrn_fprop_warp_kernel<5, T>, grid_of(line), block, 0, stream, line, x, y);
    } else {
      launch(op, lrn_fprop_warp_kernel<3, T>, grid_of(line), block, 0, stream, line, x, y);
    }
  } else {
    const Rows rows = make_rows(shape);
    launch(op, lrn_fprop_kernel<T>, blocks_for(rows.count), block, 0, stream, rows, x, y);
  }
}

template <class T>
void lrn_bprop(const LrnShape& shape, const T* x, const T* dy, T* dx, Stream stream) {
  const char* op = "lrn_bprop";
  const dim3 block(kBlockThreads);
  if (fits_warps(shape) && aligned4(x) && aligned4(dy) && aligned4(dx)) {
    const Line line = make_line(shape);
    if (shape.n == 5) {
      launch(op, lrn_bprop_warp_kernel<5, T>, grid_of(line), block, 0, stream, line, x, dy, dx);
    } else {
      launch(op, lrn_bprop_warp_kernel<3, T>, grid_of(line), block, 0, stream, line, x, dy, dx);
    }
  } else {
    const Rows rows = make_rows(shape);
    launch(op, lrn_bprop_kernel<T>, blocks_for(rows.count, kTile), block, 0, stream, rows, x, dy,
           dx);
  }
}

CONVNET_FOR_BOTH_TYPES(lrn_fprop);
CONVNET_FOR_BOTH_TYPES(lrn_bprop);

}  // namespace convnet
