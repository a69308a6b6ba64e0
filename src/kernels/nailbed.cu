// Every stride-th pixel of each channel, and its transpose (ops.h).
//   y[n,p,q,c] = x[n, start + p stride, start + q stride, c]
//   dx[n,h,w,c] = dy[n,p,q,c] where (h, w) is such a place, else 0
//
// Tensors:  x [N, H, W, C], dy [N, P, Q, C] read; y, dx written; float32 or bfloat16.
// Mapping:  a thread takes four neighbouring channels of what is written, one where C is not a
//           multiple of four or an array not aligned. No shared memory, no barriers.
// Limits:   memory. Of x only the pixels that are taken are read; the lines of 128 bytes that they
//           lie in come whole, which costs nothing from 32 channels on (bfloat16:
//           64).
#include "device/launch.h"
#include "device/vectors.h"
#include "fast_divmod.cuh"
#include "floats.cuh"
#include "ops.h"
#include "warp.cuh"

namespace convnet {
namespace {

struct NailbedIndex {
  NailbedShape shape;
  FastDivmod by_channels, by_q, by_p;  // from a flat index of y, last index first
  FastDivmod by_w, by_h;               // and of x
  FastDivmod by_stride;
};

template <int kChannels, class T>
__global__ void __launch_bounds__(kBlockThreads)
    nailbed_fprop_kernel(NailbedIndex index, unsigned threads, const T* __restrict__ x,
                         T* __restrict__ y) {
  const unsigned thread = global_thread();
  if (thread >= threads) return;
  const NailbedShape& shape = index.shape;
  unsigned n = thread;
  const int channel = kChannels * index.by_channels.split(&n);
  const int w = shape.start + index.by_q.split(&n) * shape.stride;
  const int h = shape.start + index.by_p.split(&n) * shape.stride;
  const std::int64_t at = ((n * shape.h + h) * shape.w + w) * std::int64_t{shape.c} + channel;
  store_floats(y + std::int64_t{kChannels} * thread, load_floats<kChannels>(x + at));
}

template <int kChannels, class T>
__global__ void __launch_bounds__(kBlockThreads)
    nailbed_bprop_kernel(NailbedIndex index, unsigned threads, const T* __restrict__ dy,
                         T* __restrict__ dx) {
  const unsigned thread = global_thread();
  if (thread >= threads) return;
  const NailbedShape& shape = index.shape;
  unsigned n = thread;
  const int channel = kChannels * index.by_channels.split(&n);
  const int w = index.by_w.split(&n) - shape.start;
  const int h = index.by_h.split(&n) - shape.start;
  Floats<kChannels> grad = all_floats<kChannels>(0.0f);
  if (h >= 0 && w >= 0) {
    unsigned p = h, q = w;
    const int off_row = index.by_stride.split(&p), off_column = index.by_stride.split(&q);
    if (off_row == 0 && off_column == 0) {
      const std::int64_t at = ((n * shape.p + p) * shape.q + q) * std::int64_t{shape.c} + channel;
      grad = load_floats<kChannels>(dy + at);
    }
  }
  store_floats(dx + std::int64_t{kChannels} * thread, grad);
}

NailbedIndex nailbed_index(const NailbedShape& shape, int channels_per_thread) {
  return {shape,
          FastDivmod(shape.c / channels_per_thread),
          FastDivmod(shape.q),
          FastDivmod(shape.p),
          FastDivmod(shape.w),
          FastDivmod(shape.h),
          FastDivmod(shape.stride)};
}

template <class T>
bool four_channels(const NailbedShape& shape, const T* a, const T* b) {
  return shape.c % 4 == 0 && aligned4(a) && aligned4(b);
}

template <int kChannels, class T>
void run_fprop(const NailbedShape& shape, const T* x, T* y, Stream stream) {
  const std::int64_t threads = count(y_dims(shape)) / kChannels;
  launch("nailbed_fprop", nailbed_fprop_kernel<kChannels, T>, blocks_for(threads),
         dim3(kBlockThreads), 0, stream, nailbed_index(shape, kChannels),
         static_cast<unsigned>(threads), x, y);
}

template <int kChannels, class T>
void run_bprop(const NailbedShape& shape, const T* dy, T* dx, Stream stream) {
  const std::int64_t threads = count(x_dims(shape)) / kChannels;
  launch("nailbed_bprop", nailbed_bprop_kernel<kChannels, T>, blocks_for(threads),
         dim3(kBlockThreads), 0, stream, nailbed_index(shape, kChannels),
         static_cast<unsigned>(threads), dy, dx);
}

}  // namespace

template <class T>
void nailbed_fprop(const NailbedShape& shape, const T* x, T* y, Stream stream) {
  if (four_channels(shape, x, y)) {
    run_fprop<4>(shape, x, y, stream);
  } else {
    run_fprop<1>(shape, x, y, stream);
  }
}

template <class T>
void nailbed_bprop(const NailbedShape& shape, const T* dy, T* dx, Stream stream) {
  if (four_channels(shape, dy, dx)) {
    run_bprop<4>(shape, dy, dx, stream);
  } else {
    run_bprop<1>(shape, dy, dx, stream);
  }
}

CONVNET_FOR_BOTH_TYPES(nailbed_fprop);
CONVNET_FOR_BOTH_TYPES(nailbed_bprop);

}  // namespace convnet
