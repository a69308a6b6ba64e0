// Blocks of columns between two matrices, which may lie on different devices:
//   peer_copy: dst[row, col] = src[row, col]
//   peer_add:  dst[row, col] = dst[row, col] + src[row, col]
//
// Tensors:  src, a [rows, cols] block in rows `src_stride` elements apart, read; dst likewise,
//           written (peer_add: and read); float32 or bfloat16.
// Mapping:  a thread takes four neighbouring columns of a row with one access where pointers and
//           strides allow, a last group of fewer singly; else every element has a thread. No
//           shared memory, no barriers.
// Devices:  meant to push: run on the source's device and stream, so that what crosses the link is
//           stores, which nobody waits for; peer_add also reads across it. The launcher opens the
//           way from the current device to the other. Data is ready for the other device's streams
//           after an event recorded on `stream`, which is the caller's to record and wait for.
// Limits:   the link (NVLink, PCIe) in peer_copy and peer_add; memory on one device.
#include <type_traits>

#include "device/launch.h"
#include "device/vectors.h"
#include "fast_divmod.cuh"
#include "floats.cuh"
#include "ops.h"
#include "peer.cuh"
#include "warp.cuh"

namespace convnet {
namespace {

struct Block {
  unsigned rows, cols, vectors;  // a row has `vectors` threads
  std::int64_t dst_stride, src_stride;
  FastDivmod by_vectors;
};

// What is copied keeps its bits, for its checksum's sake: those of a NaN, too.
template <bool kAdd, int kCount, class T>
__device__ void transfer(const T* src, T* dst) {
  if constexpr (kAdd) {
    Floats<kCount> values = load_floats<kCount>(src);
    const Floats<kCount> old = load_floats<kCount>(dst);
    for (int t = 0; t < kCount; ++t) values.v[t] = old.v[t] + values.v[t];
    store_floats(dst, values);
  } else {
    using Bits = std::conditional_t<kCount == 4, FourBits<T>, T>;
    *reinterpret_cast<Bits*>(dst) = *reinterpret_cast<const Bits*>(src);
  }
}

template <bool kAdd, int kCount, class T>
__global__ void __launch_bounds__(kBlockThreads) peer_kernel(Block block, const T* src, T* dst) {
  unsigned row = global_thread();
  if (row >= block.rows * block.vectors) return;
  const unsigned col = kCount * static_cast<unsigned>(block.by_vectors.split(&row));
  const T* from = src + row * block.src_stride + col;
  T* to = dst + row * block.dst_stride + col;
  if (col + kCount <= block.cols) {
    transfer<kAdd, kCount>(from, to);
  } else {
    for (unsigned t = 0; col + t < block.cols; ++t) transfer<kAdd, 1>(from + t, to + t);
  }
}

template <bool kAdd, class T>
void run(OpName op, const PeerShape& shape, const T* src, T* dst, Stream stream) {
  open_way(op, shape.dst_device);
  open_way(op, shape.src_device);
  // Rows without gaps between them are one long row.
  const bool contiguous = shape.dst_stride == shape.cols && shape.src_stride == shape.cols;
  const std::int64_t rows = contiguous ? 1 : shape.rows;
  const std::int64_t cols = contiguous ? shape.rows * shape.cols : shape.cols;
  const bool strides_fit = rows == 1 || (shape.dst_stride % 4 == 0 && shape.src_stride % 4 == 0);
  const bool vectors = aligned4(src) && aligned4(dst) && strides_fit;
  Block block;
  block.rows = static_cast<unsigned>(rows);
  block.cols = static_cast<unsigned>(cols);
  block.vectors = static_cast<unsigned>(vectors ? (cols + 3) / 4 : cols);
  block.dst_stride = shape.dst_stride;
  block.src_stride = shape.src_stride;
  block.by_vectors = FastDivmod(block.vectors);
  const dim3 grid = blocks_for(rows * block.vectors);
  if (vectors) {
    launch(op, peer_kernel<kAdd, 4, T>, grid, dim3(kBlockThreads), 0, stream, block, src, dst);
  } else {
    launch(op, peer_kernel<kAdd, 1, T>, grid, dim3(kBlockThreads), 0, stream, block, src, dst);
  }
}

}  // namespace

template <class T>
void peer_copy(const PeerShape& shape, const T* src, T* dst, Stream stream) {
  run<false>("peer_copy", shape, src, dst, stream);
}

template <class T>
void peer_add(const PeerShape& shape, const T* src, T* dst, Stream stream) {
  run<true>("peer_add", shape, src, dst, stream);
}

CONVNET_FOR_BOTH_TYPES(peer_copy);
CONVNET_FOR_BOTH_TYPES(peer_add);

}  // namespace convnet
