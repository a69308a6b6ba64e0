// Average pooling and its backward pass, over windows clipped to the image (ops.h).
//   y[n,p,q,c] = 1 / |window(p,q)| * sum over the window of x[n,h,w,c]
//   dx[n,h,w,c] = sum over the windows (p, q) that hold (h, w) of dy[n,p,q,c] / |window(p,q)|
//
// Tensors:  x [N, H, W, C], dy [N, P, Q, C] read; y, dx written; float32 or bfloat16.
// Mapping:  as in maxpool.cu: a thread takes four neighbouring channels of one output, and backward
//           of one input, and both passes gather, in row-major order. One channel where C is not a
//           multiple of four or an array not aligned. No shared memory, no barriers.
// Limits:   memory: each input and each output passes once; what overlaps comes from the caches.
#include "device/launch.h"
#include "device/vectors.h"
#include "floats.cuh"
#include "ops.h"
#include "pool.cuh"
#include "warp.cuh"

namespace convnet {
namespace {

// Blocks on a multiprocessor, where ptxas would else spill for the sake of more; 0: as it likes.
template <class T>
constexpr int kBlocks = storage_of<T> == Storage::kBfloat16 ? 5 : 0;

// 1 / |window|, of a clipped window. A division by / is a function call with its own stack frame;
// the hardware's approximation and a Newton step round the same way, and powers of two are exact.
__device__ float window_share(const Span& rows, const Span& cols) {
  const float count =
      static_cast<float>(rows.end - rows.begin) * static_cast<float>(cols.end - cols.begin);
  const float share = __fdividef(1.0f, count);
  return share + share * (1.0f - count * share);
}

template <int kChannels, class T>
__global__ void __launch_bounds__(kBlockThreads, kBlocks<T>)
    avgpool_fprop_kernel(PoolIndex index, unsigned threads, const T* __restrict__ x,
                         T* __restrict__ y) {
  const unsigned thread = global_thread();
  if (thread >= threads) return;
  const PoolShape& shape = index.shape;
  unsigned n = thread;
  const int channel = kChannels * index.by_channels.split(&n);
  const int q = index.by_q.split(&n);
  const int p = index.by_p.split(&n);
  const Span rows = window_span(p, shape.stride_h, shape.pad_h, shape.size_h, shape.h);
  const Span cols = window_span(q, shape.stride_w, shape.pad_w, shape.size_w, shape.w);
  Floats<kChannels> sum = all_floats<kChannels>(0.0f);
  for (int h = rows.begin; h < rows.end; ++h) {
    const T* row = x + ((n * shape.h + h) * shape.w) * std::int64_t{shape.c} + channel;
    for (int w = cols.begin; w < cols.end; ++w) {
      const Floats<kChannels> values = load_floats<kChannels>(row + w * shape.c);
      for (int t = 0; t < kChannels; ++t) sum.v[t] += values.v[t];
    }
  }
  const float share = window_share(rows, cols);
  for (int t = 0; t < kChannels; ++t) sum.v[t] *= share;
  store_floats(y + std::int64_t{kChannels} * thread, sum);
}

template <int kChannels, class T>
__global__ void __launch_bounds__(kBlockThreads)
    avgpool_bprop_kernel(PoolIndex index, unsigned threads, const T* __restrict__ dy,
                         T* __restrict__ dx) {
  const unsigned thread = global_thread();
  if (thread >= threads) return;
  const PoolShape& shape = index.shape;
  unsigned n = thread;
  const int channel = kChannels * index.by_channels.split(&n);
  const int w = index.by_w.split(&n);
  const int h = index.by_h.split(&n);
  const Span ps = covering_span(h, index.by_stride_h, shape.pad_h, shape.size_h, shape.p);
  const Span qs = covering_span(w, index.by_stride_w, shape.pad_w, shape.size_w, shape.q);
  Floats<kChannels> sum = all_floats<kChannels>(0.0f);
  for (int p = ps.begin; p < ps.end; ++p) {
    const Span rows = window_span(p, shape.stride_h, shape.pad_h, shape.size_h, shape.h);
    for (int q = qs.begin; q < qs.end; ++q) {
      const Span cols = window_span(q, shape.stride_w, shape.pad_w, shape.size_w, shape.w);
      const float share = window_share(rows, cols);
      const std::int64_t at = ((n * shape.p + p) * shape.q + q) * std::int64_t{shape.c} + channel;
      const Floats<kChannels> grad = load_floats<kChannels>(dy + at);
      for (int t = 0; t < kChannels; ++t) sum.v[t] += share * grad.v[t];
    }
  }
  store_floats(dx + std::int64_t{kChannels} * thread, sum);
}

template <class T>
bool four_channels(const PoolShape& shape, const T* a, const T* b) {
  return shape.c % 4 == 0 && aligned4(a) && aligned4(b);
}

template <int kChannels, class T>
void run_fprop(const PoolShape& shape, const T* x, T* y, Stream stream) {
  const std::int64_t threads = count(y_dims(shape)) / kChannels;
  launch("avgpool_fprop", avgpool_fprop_kernel<kChannels, T>, blocks_for(threads),
         dim3(kBlockThreads), 0, stream, pool_index(shape, kChannels),
         static_cast<unsigned>(threads), x, y);
}

template <int kChannels, class T>
void run_bprop(const PoolShape& shape, const T* dy, T* dx, Stream stream) {
  const std::int64_t threads = count(x_dims(shape)) / kChannels;
  launch("avgpool_bprop", avgpool_bprop_kernel<kChannels, T>, blocks_for(threads),
         dim3(kBlockThreads), 0, stream, pool_index(shape, kChannels),
         static_cast<unsigned>(threads), dy, dx);
}

}  // namespace

template <class T>
void avgpool_fprop(const PoolShape& shape, const T* x, T* y, Stream stream) {
  if (four_channels(shape, x, y)) {
    run_fprop<4>(shape, x, y, stream);
  } else {
    run_fprop<1>(shape, x, y, stream);
  }
}

template <class T>
void avgpool_bprop(const PoolShape& shape, const T* dy, T* dx, Stream stream) {
  if (four_channels(shape, dy, dx)) {
    run_bprop<4>(shape, dy, dx, stream);
  } else {
    run_bprop<1>(shape, dy, dx, stream);
  }
}

CONVNET_FOR_BOTH_TYPES(avgpool_fprop);
CONVNET_FOR_BOTH_TYPES(avgpool_bprop);

}  // namespace convnet
