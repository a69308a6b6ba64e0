// A Gaussian over each channel, with zeros outside the image (ops.h).
//   y[n,h,w,c] = sum_r g_r sum_s g_s x[n, h - size/2 + r, w - size/2 + s, c]
//
// Tensors:  x [N, H, W, C] read, y [N, H, W, C] written, float32 or bfloat16; g is a kernel argument, and lies in
//           constant memory.
// Mapping:  a thread takes four neighbouring channels of eight outputs below each other, and goes
//           down the rows that these see. What a row gives across is made once, and added to each
//           of the up to `size` outputs whose windows hold it: size + size multiply-adds an output
//           in place of size * size. One channel where C is not a multiple of four or an array not
//           aligned. The sizes are template arguments, so that all sums stay in registers. No
//           shared memory, no barriers.
// Edges:    places outside the image are passed over; the last strip of rows may be shorter.
// Limits:   memory. Rows between two strips are read by both, from the caches.
#include "device/launch.h"
#include "device/vectors.h"
#include "fast_divmod.cuh"
#include "floats.cuh"
#include "ops.h"
#include "warp.cuh"

namespace convnet {
namespace {

constexpr int kStripRows = 8;  // outputs of a thread

// Blocks on a multiprocessor, where ptxas would else spill for the sake of a fourth; 0: as it likes.
template <class T>
constexpr int kBlocks = storage_of<T> == Storage::kBfloat16 ? 3 : 0;

struct BlurIndex {
  BlurShape shape;
  FastDivmod by_channels, by_w, by_strips;  // from a thread's number, last index first
};

// sum += factor * values
template <int kChannels>
__device__ void add_scaled(Floats<kChannels>* sum, float factor, const Floats<kChannels>& values) {
  for (int t = 0; t < kChannels; ++t) sum->v[t] += factor * values.v[t];
}

// The filter across, around column w of a row of the image.
template <int kChannels, int kSize, class T>
__device__ Floats<kChannels> across(const BlurShape& shape, const T* __restrict__ row, int w) {
  Floats<kChannels> sum = all_floats<kChannels>(0.0f);
#pragma unroll
  for (int s = 0; s < kSize; ++s) {
    const int column = w - kSize / 2 + s;
    if (column < 0 || column >= shape.w) continue;
    add_scaled(&sum, shape.weights[s], load_floats<kChannels>(row + column * shape.c));
  }
  return sum;
}

template <int kChannels, int kSize, class T>
__global__ void __launch_bounds__(kBlockThreads, kBlocks<T>)
    blur_kernel(BlurIndex index, unsigned threads, const T* __restrict__ x, T* __restrict__ y) {
  const unsigned thread = global_thread();
  if (thread >= threads) return;
  const BlurShape& shape = index.shape;
  unsigned n = thread;
  const int channel = kChannels * index.by_channels.split(&n);
  const int w = index.by_w.split(&n);
  const int first = kStripRows * index.by_strips.split(&n);  // row of the output
  const std::int64_t row_length = std::int64_t{shape.w} * shape.c;
  const std::int64_t image = n * (shape.h * row_length) + channel;
  Floats<kChannels> sums[kStripRows];
#pragma unroll
  for (int i = 0; i < kStripRows; ++i) sums[i] = all_floats<kChannels>(0.0f);
#pragma unroll
  for (int i = 0; i < kStripRows + kSize - 1; ++i) {
    const int h = first - kSize / 2 + i;
    if (h < 0 || h >= shape.h) continue;
    const Floats<kChannels> sum = across<kChannels, kSize>(shape, x + image + h * row_length, w);
#pragma unroll
    for (int r = 0; r < kSize; ++r) {  // this row is row r of the window of output i - r
      if (i - r >= 0 && i - r < kStripRows) add_scaled(&sums[i - r], shape.weights[r], sum);
    }
  }
#pragma unroll
  for (int i = 0; i < kStripRows; ++i) {
    if (first + i >= shape.h) break;
    store_floats(y + image + (first + i) * row_length + w * shape.c, sums[i]);
  }
}

template <int kChannels, int kSize, class T>
void run(const BlurShape& shape, const T* x, T* y, Stream stream) {
  const int vectors = shape.c / kChannels;
  const int strips = (shape.h + kStripRows - 1) / kStripRows;
  const BlurIndex index{shape, FastDivmod(vectors), FastDivmod(shape.w), FastDivmod(strips)};
  const std::int64_t threads = std::int64_t{shape.n} * strips * shape.w * vectors;
  launch("blur", blur_kernel<kChannels, kSize, T>, blocks_for(threads), dim3(kBlockThreads), 0,
         stream, index, static_cast<unsigned>(threads), x, y);
}

template <int kChannels, class T>
void run_of_size(const BlurShape& shape, const T* x, T* y, Stream stream) {
  if (shape.size == 3) {
    run<kChannels, 3>(shape, x, y, stream);
  } else if (shape.size == 5) {
    run<kChannels, 5>(shape, x, y, stream);
  } else if (shape.size == 7) {
    run<kChannels, 7>(shape, x, y, stream);
  } else {
    run<kChannels, 9>(shape, x, y, stream);
  }
}

}  // namespace

template <class T>
void blur(const BlurShape& shape, const T* x, T* y, Stream stream) {
  if (shape.c % 4 == 0 && aligned4(x) && aligned4(y)) {
    run_of_size<4>(shape, x, y, stream);
  } else {
    run_of_size<1>(shape, x, y, stream);
  }
}

CONVNET_FOR_BOTH_TYPES(blur);

}  // namespace convnet
