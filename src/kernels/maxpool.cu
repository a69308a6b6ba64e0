// Max-pooling and its backward pass, over windows clipped to the image (ops.h).
//   y[n,p,q,c] = max over r, s of x[n, p*stride_h - pad_h + r, q*stride_w - pad_w + s, c]
//   argmax[n,p,q,c] = r * size_w + s of the winner: the first of equals, or the first NaN
//   dx[n,h,w,c] = sum over the windows (p, q) whose winner is (h, w) of dy[n,p,q,c]
//
// Tensors:  x [N, H, W, C] and dy, argmax [N, P, Q, C] read; y, argmax and dx written; x, y, dy and
//           dx float32 or bfloat16.
// Mapping:  forward, a thread takes four neighbouring channels of one output and runs over its
//           window; backward, four channels of one input, and runs over the windows that hold it in
//           row-major order: a gather, so nothing is written twice and nothing is left unwritten.
//           Neighbouring threads take neighbouring channels, then pixels, so that accesses are
//           whole lines. No shared memory, no barriers.
// Edges:    where C is not a multiple of four, or an array not aligned, a thread takes one channel.
//           The window loops are written for any size, and again for 3x3 and 2x2 inside the image,
//           where all loads may be under way at once.
// Limits:   forward 4 bytes read an input, 5 written an output; backward 5 read an output, 4
//           written an input; in bfloat16 2, 3, 3 and 2. Overlapping windows (3/2: 2.25 reads of an input, up to 4 of an
//           output) read again from the L1 and L2 caches.
#include "device/launch.h"
#include "maxpool.cuh"
#include "warp.cuh"

namespace convnet {
namespace {

// kSize: the side of a square window, or 0 for any.
template <int kChannels, int kSize, class T>
__global__ void __launch_bounds__(kBlockThreads)
    maxpool_fprop_kernel(PoolIndex index, unsigned threads, const T* __restrict__ x,
                         T* __restrict__ y, std::uint8_t* __restrict__ argmax) {
  const unsigned thread = global_thread();
  if (thread >= threads) return;
  const PoolShape& shape = index.shape;
  unsigned n = thread;
  const int channel = kChannels * index.by_channels.split(&n);
  const int q = index.by_q.split(&n);
  const int p = index.by_p.split(&n);
  const Span rows = window_span(p, shape.stride_h, shape.pad_h, shape.size_h, shape.h);
  const Span cols = window_span(q, shape.stride_w, shape.pad_w, shape.size_w, shape.w);
  const int row_step = shape.w * shape.c;
  // The first element of the window that lies on the image.
  const T* first =
      x + ((n * shape.h + rows.begin) * shape.w + cols.begin) * std::int64_t{shape.c} + channel;
  const int first_code = (rows.begin - rows.start) * shape.size_w + cols.begin - cols.start;
  Best<kChannels> best;
  best.value = load_floats<kChannels>(first);
  for (int t = 0; t < kChannels; ++t) best.code[t] = first_code;
  if (kSize > 0 && rows.end - rows.begin == kSize && cols.end - cols.begin == kSize) {
    for (int h = 0; h < kSize; ++h) {
      for (int w = 0; w < kSize; ++w) {
        best.offer(load_floats<kChannels>(first + h * row_step + w * shape.c), h * kSize + w);
      }
    }
  } else {
    for (int h = 0; h < rows.end - rows.begin; ++h) {
      for (int w = 0; w < cols.end - cols.begin; ++w) {
        best.offer(load_floats<kChannels>(first + h * row_step + w * shape.c),
                   first_code + h * shape.size_w + w);
      }
    }
  }
  const std::int64_t out = std::int64_t{kChannels} * thread;
  store_floats(y + out, best.value);
  store_codes(argmax + out, best.code);
}

template <int kChannels, class T>
__global__ void __launch_bounds__(kBlockThreads)
    maxpool_bprop_kernel(PoolIndex index, unsigned threads, const T* __restrict__ dy,
                         const std::uint8_t* __restrict__ argmax, T* __restrict__ dx) {
  const unsigned thread = global_thread();
  if (thread >= threads) return;
  unsigned n = thread;
  const int channel = kChannels * index.by_channels.split(&n);
  const int w = index.by_w.split(&n);
  const int h = index.by_h.split(&n);
  const Floats<kChannels> sum = gathered<kChannels>(index, n, h, w, channel, dy, argmax);
  store_floats(dx + std::int64_t{kChannels} * thread, sum);
}

template <int kChannels, int kSize, class T>
void run_fprop(const PoolShape& shape, const T* x, T* y, std::uint8_t* argmax, Stream stream) {
  const std::int64_t threads = count(y_dims(shape)) / kChannels;
  launch("maxpool_fprop", maxpool_fprop_kernel<kChannels, kSize, T>, blocks_for(threads),
         dim3(kBlockThreads), 0, stream, pool_index(shape, kChannels),
         static_cast<unsigned>(threads), x, y, argmax);
}

template <int kChannels, class T>
void run_fprop(const PoolShape& shape, const T* x, T* y, std::uint8_t* argmax, Stream stream) {
  if (shape.size_h == 3 && shape.size_w == 3) {
    run_fprop<kChannels, 3>(shape, x, y, argmax, stream);
  } else if (shape.size_h == 2 && shape.size_w == 2) {
    run_fprop<kChannels, 2>(shape, x, y, argmax, stream);
  } else {
    run_fprop<kChannels, 0>(shape, x, y, argmax, stream);
  }
}

template <int kChannels, class T>
void run_bprop(const PoolShape& shape, const T* dy, const std::uint8_t* argmax, T* dx,
               Stream stream) {
  const std::int64_t threads = count(x_dims(shape)) / kChannels;
  launch("maxpool_bprop", maxpool_bprop_kernel<kChannels, T>, blocks_for(threads),
         dim3(kBlockThreads), 0, stream, pool_index(shape, kChannels),
         static_cast<unsigned>(threads), dy, argmax, dx);
}

}  // namespace

template <class T>
void maxpool_fprop(const PoolShape& shape, const T* x, T* y, std::uint8_t* argmax, Stream stream) {
  if (four_channels(shape, x, y, argmax)) {
    run_fprop<4>(shape, x, y, argmax, stream);
  } else {
    run_fprop<1>(shape, x, y, argmax, stream);
  }
}

template <class T>
void maxpool_bprop(const PoolShape& shape, const T* dy, const std::uint8_t* argmax, T* dx,
                   Stream stream) {
  if (four_channels(shape, dy, dx, argmax)) {
    run_bprop<4>(shape, dy, argmax, dx, stream);
  } else {
    run_bprop<1>(shape, dy, argmax, dx, stream);
  }
}

CONVNET_FOR_BOTH_TYPES(maxpool_fprop);
CONVNET_FOR_BOTH_TYPES(maxpool_bprop);

}  // namespace convnet
