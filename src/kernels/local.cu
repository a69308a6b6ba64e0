// Locally connected layer: a convolution whose filters differ from place to place (ops.h).
//   y[n,p,q,k] = relu(b[p,q,k] + sum_{r,s,c} x[n,h,w, g C/G + c] w[p,q,k,r,s,c]),   g = k / (K/G)
//   dx[n,h,w, g C/G + c] = mask(sum_{p,q,k} dy[n,p,q,k] w[p,q,k,r,s,c])
//   dw[p,q,k,r,s,c] = sum_n dy[n,p,q,k] x[n,h,w, g C/G + c];   db[p,q,k] = sum_n dy[n,p,q,k]
// with h = p stride_h - pad_h + r and w = q stride_w - pad_w + s; zeros where that is outside.
//
// Tensors:  x [N,H,W,C], w [P,Q,K,R,S,C/G], b [P,Q,K] or null, dy [N,P,Q,K] read; y, dx, dw, db
//           (may be null) written.
// Mapping:  nothing is shared between places, so each is a small matrix product, with the images as
//           one of its sizes; the tiles of all of them make up one grid (tile.cuh says how a block
//           works). What C[m, j] = sum_i A[m, i] B[j, i] is in
//             fprop  for a place and group:  m = n, j = k, i = (r,s,c)
//             dgrad  for a pixel and group:  m = n, j = c, i = (p,q,k), windows in row-major order
//             wgrad  for a place and group:  m = k, j = (r,s,c), i = n
//           db has a kernel of its own, one thread an element.
// Edges:    reads beyond the image and beyond a size are zeros. 128-bit loads where C/G (dgrad: and
//           K/G) is a multiple of four and arrays are aligned to 16 bytes.
// Limits:   2 N P Q K R S C/G operations a pass. Every filter is read once for 64 images: with
//           fewer, it is the memory for w that limits.
#include "device.h"
#include "divider.cuh"
#include "epilogue.cuh"
#include "gather.cuh"
#include "ops.h"
#include "tile.cuh"
#include "warp.cuh"
#include "window.cuh"

namespace convnet {
namespace {

// What the three passes need to know; sizes in elements.
struct Local {
  ConvShape shape;
  Taps taps;                  // of a window: length is R S C/G
  unsigned group_c, group_k;  // C/G, K/G
  unsigned x_image, y_image;  // from one image to the next
  unsigned rows, columns;     // of each product
  unsigned tiles_m, tiles_n;
  Divider by_group_k, by_stride_h, by_stride_w;
  bool vector_out;
};

// The part of the grid that a block works on. `place` is a place of y, or in dgrad a pixel of x.
struct Work {
  unsigned first_row, first_column, group, place;
};

template <class T>
__device__ Work block_work(const Local& local) {
  unsigned rest = blockIdx.x;
  Work work;
  work.first_column = rest % local.tiles_n * T::kN;
  rest /= local.tiles_n;
  work.first_row = rest % local.tiles_m * T::kM;
  rest /= local.tiles_m;
  work.group = rest % local.shape.groups;
  work.place = rest / local.shape.groups;
  return work;
}

__device__ Output output_of(const Local& local, const Work& work, float* out,
                            const Epilogue& epilogue, unsigned first_channel) {
  Output output{};
  output.out = out;
  output.first_row = work.first_row;
  output.first_column = work.first_column;
  output.rows = local.rows;
  output.columns = local.columns;
  output.first_channel = first_channel;
  output.vector = local.vector_out;
  output.epilogue = epilogue;
  return output;
}

__device__ unsigned steps_for(unsigned length) { return (length + kTileK - 1) / kTileK; }

// ---- fprop -------------------------------------------------------------------------------------

// B[j, i]: the filters of one place and group as they lie in memory.
template <class T, bool kVector>
class Filters : public AlongK<T::kN, T::kThreads, kVector> {
  using Base = AlongK<T::kN, T::kThreads, kVector>;

 public:
  __device__ Filters(const float* w, const Local& local, const Work& work)
      : w_(w + std::size_t{work.place * local.shape.k + work.group * local.group_k} *
                   local.taps.length),
        first_(work.first_column),
        filters_(local.columns),
        length_(local.taps.length) {}

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

template <class T, bool kVector>
__global__ void __launch_bounds__(T::kThreads)
    local_fprop_kernel(const Local local, const float* x, const float* w, const float* b, bool relu,
                       float* y) {
  const ConvShape& s = local.shape;
  const Work work = block_work<T>(local);
  using Pixels = PixelRows<T, kVector, 1>;
  Pixels pixels(x, local.taps);
  const unsigned top = work.place / s.q * s.stride_h - s.pad_h;
  const unsigned left = work.place % s.q * s.stride_w - s.pad_w;
#pragma unroll
  for (int load = 0; load < Pixels::kLoads; ++load) {
    const unsigned n = work.first_row + Pixels::row(load);
    if (n < local.rows) {
      pixels.begin_row(load, n, top, left, work.group * local.group_c);
    } else {
      pixels.skip_row(load);
    }
  }
  Filters<T, kVector> filters(w, local, work);
  float sum[T::kThreadM][T::kThreadN];
  OnlyMultiply also;
  multiply<T>(pixels, filters, 0, steps_for(local.taps.length), sum, also);
  const unsigned channel = work.place * s.k + work.group * local.group_k;
  const unsigned pitch = local.y_image;
  store_tile<T>(sum, output_of(local, work, y, Epilogue{b, nullptr, relu}, channel),
                [=](unsigned n) { return n * pitch + channel; });
}

// ---- dgrad -------------------------------------------------------------------------------------

// The windows that hold one pixel, and from i to one of them.
struct Windows {
  int h, w;
  Span ps, qs;
  unsigned q_count, length;  // of the sum: windows * K/G

  __device__ Windows(const Local& local, unsigned pixel)
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
  __device__ Term at(const Local& local, unsigned i) const {
    unsigned window = i;
    const unsigned filter = static_cast<unsigned>(local.by_group_k.split(&window));
    return {ps.begin + static_cast<int>(window / q_count),
            qs.begin + static_cast<int>(window % q_count), filter};
  }
};

// A[n, i]: the gradients of one group at the windows.
template <class T, bool kVector>
class Gradients : public AlongK<T::kM, T::kThreads, kVector> {
  using Base = AlongK<T::kM, T::kThreads, kVector>;

 public:
  __device__ Gradients(const float* dy, const Local& local, const Work& work,
                       const Windows& windows)
      : dy_(dy), local_(local), work_(work), windows_(windows) {}

  __device__ void fetch(unsigned first_k) {
    const unsigned k = first_k + Base::k();
    unsigned offset = 0;
    if (k < windows_.length) {
      const Windows::Term term = windows_.at(local_, k);
      offset = (term.p * local_.shape.q + term.q) * local_.shape.k + work_.group * local_.group_k +
               term.filter;
    }
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned n = work_.first_row + Base::row(load);
      read(this->values[load], dy_, n * local_.y_image + offset,
           n < local_.rows && k < windows_.length);
    }
  }

 private:
  const float* dy_;
  const Local& local_;
  const Work& work_;
  const Windows& windows_;
};

// B[c, i]: the weights between channel c of the pixel and the filters of the windows.
template <class T, bool kVector>
class WindowWeights : public AlongRows<T::kN, T::kThreads, kVector> {
  using Base = AlongRows<T::kN, T::kThreads, kVector>;

 public:
  __device__ WindowWeights(const float* w, const Local& local, const Work& work,
                           const Windows& windows)
      : w_(w), local_(local), work_(work), windows_(windows) {}

  __device__ void fetch(unsigned first_k) {
    const ConvShape& s = local_.shape;
    const unsigned k = first_k + Base::k();
    unsigned offset = 0;
    if (k < windows_.length) {
      const Windows::Term term = windows_.at(local_, k);
      const unsigned place = term.p * s.q + term.q;
      const unsigned filter = place * s.k + work_.group * local_.group_k + term.filter;
      const int tap_h = windows_.h + s.pad_h - term.p * s.stride_h;
      const int tap_w = windows_.w + s.pad_w - term.q * s.stride_w;
      offset = filter * local_.taps.length + (tap_h * s.s + tap_w) * local_.group_c;
    }
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned channel = work_.first_column + Base::row(load);
      read(this->values[load], w_, offset + channel,
           channel < local_.columns && k < windows_.length);
    }
  }

 private:
  const float* w_;
  const Local& local_;
  const Work& work_;
  const Windows& windows_;
};

template <class T, bool kVector>
__global__ void __launch_bounds__(T::kThreads)
    local_dgrad_kernel(const Local local, const float* dy, const float* w, const float* relu_mask,
                       float* dx) {
  const Work work = block_work<T>(local);
  const Windows windows(local, work.place);
  Gradients<T, kVector> gradients(dy, local, work, windows);
  WindowWeights<T, kVector> weights(w, local, work, windows);
  float sum[T::kThreadM][T::kThreadN];
  OnlyMultiply also;
  multiply<T>(gradients, weights, 0, steps_for(windows.length), sum, also);
  const unsigned start = work.place * local.shape.c + work.group * local.group_c;
  const unsigned pitch = local.x_image;
  store_tile<T>(sum, output_of(local, work, dx, Epilogue{nullptr, relu_mask, false}, 0),
                [=](unsigned n) { return n * pitch + start; });
}

// ---- wgrad -------------------------------------------------------------------------------------

// A[k, n]: the gradients of one place and group.
template <class T, bool kVector>
class PlaceGradients : public AlongRows<T::kM, T::kThreads, kVector> {
  using Base = AlongRows<T::kM, T::kThreads, kVector>;

 public:
  __device__ PlaceGradients(const float* dy, const Local& local, const Work& work)
      : dy_(dy + work.place * local.shape.k + work.group * local.group_k),
        first_(work.first_row),
        filters_(local.rows),
        images_(local.shape.n),
        image_(local.y_image) {}

  __device__ void fetch(unsigned first_k) {
    const unsigned n = first_k + Base::k();
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned filter = first_ + Base::row(load);
      read(this->values[load], dy_, n * image_ + filter, filter < filters_ && n < images_);
    }
  }

 private:
  const float* dy_;
  unsigned first_, filters_, images_, image_;
};

// B[(r,s,c), n]: the window of one place and group. Where its elements lie is the same for all n.
template <class T, bool kVector>
class Window : public AlongRows<T::kN, T::kThreads, kVector> {
  using Base = AlongRows<T::kN, T::kThreads, kVector>;

 public:
  __device__ Window(const float* x, const Local& local, const Work& work)
      : x_(x), images_(local.shape.n), image_(local.x_image) {
    const ConvShape& s = local.shape;
    const unsigned top = work.place / s.q * s.stride_h - s.pad_h;
    const unsigned left = work.place % s.q * s.stride_w - s.pad_w;
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      unsigned tap = work.first_column + Base::row(load);
      const bool exists = tap < local.columns;
      const unsigned channel = local.taps.by_channels.split(&tap);
      const unsigned w = left + local.taps.by_width.split(&tap), h = top + tap;
      // Places above or left of the image wrap to numbers beyond any size.
      valid_[load] = exists && h < local.taps.height && w < local.taps.width;
      offset_[load] = (h * s.w + w) * s.c + work.group * local.group_c + channel;
    }
  }

  __device__ void fetch(unsigned first_k) {
    const unsigned n = first_k + Base::k();
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      read(this->values[load], x_, n * image_ + offset_[load], valid_[load] && n < images_);
    }
  }

 private:
  const float* x_;
  unsigned images_, image_;
  unsigned offset_[Base::kLoads];
  bool valid_[Base::kLoads];
};

template <class T, bool kVector>
__global__ void __launch_bounds__(T::kThreads)
    local_wgrad_kernel(const Local local, const float* x, const float* dy, float* dw) {
  const Work work = block_work<T>(local);
  PlaceGradients<T, kVector> gradients(dy, local, work);
  Window<T, kVector> window(x, local, work);
  float sum[T::kThreadM][T::kThreadN];
  OnlyMultiply also;
  multiply<T>(gradients, window, 0, steps_for(local.shape.n), sum, also);
  const unsigned filter = work.place * local.shape.k + work.group * local.group_k;
  const unsigned length = local.taps.length;
  store_tile<T>(sum, output_of(local, work, dw, Epilogue{}, 0),
                [=](unsigned k) { return (filter + k) * length; });
}

// db[i] = the sum over n of dy[n, i].
__global__ void __launch_bounds__(kBlockThreads)
    local_bias_kernel(int images, unsigned count, const float* __restrict__ dy,
                      float* __restrict__ db) {
  const unsigned i = global_thread();
  if (i >= count) return;
  float sum = 0.0f;
  for (int n = 0; n < images; ++n) sum += dy[std::size_t{count} * n + i];
  db[i] = sum;
}

// ---- launchers ---------------------------------------------------------------------------------

using ImageTile = NarrowTile;  // rows are images: fprop and dgrad
using FilterTile = WideTile;   // rows are filters: wgrad

// For products of rows x columns, one for each of `places` and each group.
template <class T>
Local make_local(const ConvShape& shape, int rows, int columns) {
  Local local{};
  local.shape = shape;
  local.group_c = static_cast<unsigned>(shape.c / shape.groups);
  local.group_k = static_cast<unsigned>(shape.k / shape.groups);
  local.taps.height = static_cast<unsigned>(shape.h);
  local.taps.width = static_cast<unsigned>(shape.w);
  local.taps.pitch = static_cast<unsigned>(shape.c);
  local.taps.length = static_cast<unsigned>(shape.r) * shape.s * local.group_c;
  local.taps.by_channels = Divider(local.group_c);
  local.taps.by_width = Divider(shape.s);
  local.x_image = static_cast<unsigned>(shape.h) * shape.w * shape.c;
  local.y_image = static_cast<unsigned>(shape.p) * shape.q * shape.k;
  local.rows = static_cast<unsigned>(rows);
  local.columns = static_cast<unsigned>(columns);
  local.tiles_m = (local.rows + T::kM - 1) / T::kM;
  local.tiles_n = (local.columns + T::kN - 1) / T::kN;
  local.by_group_k = Divider(local.group_k);
  local.by_stride_h = Divider(shape.stride_h);
  local.by_stride_w = Divider(shape.stride_w);
  return local;
}

dim3 grid_of(const Local& local, int places) {
  return dim3(local.tiles_n * local.tiles_m * local.shape.groups * places);
}

}  // namespace

void local_fprop(const ConvShape& shape, const float* x, const float* w, const float* b, bool relu,
                 float* y, Stream stream) {
  using T = ImageTile;
  Local local = make_local<T>(shape, shape.n, shape.k / shape.groups);
  local.vector_out = local.group_k % 4 == 0 && aligned16(y);
  const dim3 grid = grid_of(local, shape.p * shape.q), block(T::kThreads);
  if (local.group_c % 4 == 0 && aligned16(x) && aligned16(w)) {
    launch("local_fprop", local_fprop_kernel<T, true>, grid, block, 0, stream, local, x, w, b, relu,
           y);
  } else {
    launch("local_fprop", local_fprop_kernel<T, false>, grid, block, 0, stream, local, x, w, b,
           relu, y);
  }
}

void local_dgrad(const ConvShape& shape, const float* dy, const float* w, const float* relu_mask,
                 float* dx, Stream stream) {
  using T = ImageTile;
  Local local = make_local<T>(shape, shape.n, shape.c / shape.groups);
  local.vector_out = local.group_c % 4 == 0 && aligned16(dx);
  const dim3 grid = grid_of(local, shape.h * shape.w), block(T::kThreads);
  const bool fours = local.group_c % 4 == 0 && local.group_k % 4 == 0;
  if (fours && aligned16(dy) && aligned16(w)) {
    launch("local_dgrad", local_dgrad_kernel<T, true>, grid, block, 0, stream, local, dy, w,
           relu_mask, dx);
  } else {
    launch("local_dgrad", local_dgrad_kernel<T, false>, grid, block, 0, stream, local, dy, w,
           relu_mask, dx);
  }
}

void local_wgrad(const ConvShape& shape, const float* x, const float* dy, float* dw, float* db,
                 Stream stream) {
  using T = FilterTile;
  const int depth = shape.r * shape.s * (shape.c / shape.groups);
  Local local = make_local<T>(shape, shape.k / shape.groups, depth);
  local.vector_out = depth % 4 == 0 && aligned16(dw);
  const dim3 grid = grid_of(local, shape.p * shape.q), block(T::kThreads);
  const bool fours = local.group_c % 4 == 0 && local.group_k % 4 == 0;
  if (fours && aligned16(x) && aligned16(dy)) {
    launch("local_wgrad", local_wgrad_kernel<T, true>, grid, block, 0, stream, local, x, dy, dw);
  } else {
    launch("local_wgrad", local_wgrad_kernel<T, false>, grid, block, 0, stream, local, x, dy, dw);
  }
  if (db != nullptr) {
    launch("local_wgrad", local_bias_kernel, blocks_for(local.y_image), dim3(kBlockThreads), 0,
           stream, shape.n, local.y_image, dy, db);
  }
}

}  // namespace convnet
