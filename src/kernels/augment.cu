// Crop, mirror, colour noise and mean subtraction, from bytes to floats (paper, section 4.1).
//   y[n,p,q,c] = scale * (x[n, h, w, c] + noise[n,c] - mean[h,w,c]);  h = p + offset_h[n]
//   w = offset_w[n] + (mirror[n] ? Q - 1 - q : q);  a place outside x gives 0 (the mean)
//
// Tensors:  x [N, H, W, C] uint8, offsets [N, 2] int32 (rows, columns), mirror [N] uint8, noise
//           [N, C] or null, mean [H, W, C] or [1, 1, C], all read; y [N, P, Q, C] written.
// Mapping:  a warp takes a row of a crop, so that what depends on the image and the row is the
//           same in all lanes; a lane takes four neighbouring elements at a time, and stores them
//           by one 128-bit access where Q C is a multiple of four and y aligned to 16 bytes. No
//           shared memory, no barriers.
// Edges:    the last Q C % 4 elements of a row go singly. Offsets may be any integers: whether a
//           place is inside is decided in arithmetic modulo 2^32, where no sum passes for another.
// Limits:   4 bytes written and 1 read an element, and the mean, which stays in the L2 cache; about
//           35 instructions an element, which is about as long as the memory takes.
#include "device/launch.h"
#include "device/vectors.h"
#include "fast_divmod.cuh"
#include "ops.h"
#include "warp.cuh"

namespace convnet {
namespace {

constexpr int kBlockRows = kBlockThreads / kWarpLanes;

struct Crop {
  AugmentShape shape;
  unsigned rows, length;  // of all crops: N P rows of Q C elements
  FastDivmod by_p, by_c;
  float scale;
  bool vectors;     // 128-bit stores
  bool mean_image;  // mean is [H, W, C]
};

struct Images {
  const std::uint8_t* x;
  const std::int32_t* offsets;
  const std::uint8_t* mirror;
  const float* noise;
  const float* mean;
};

// A row of one image; null pointers where it lies outside.
struct Row {
  const std::uint8_t* x;
  const float* mean;
  const float* noise;  // or null: none
  unsigned left;       // the crop's first column in the image
  bool mirrored;
};

__device__ Row row_of(const Crop& crop, const Images& from, unsigned row) {
  const AugmentShape& shape = crop.shape;
  unsigned n = row;
  const auto p = static_cast<unsigned>(crop.by_p.split(&n));
  // A place above or left of the image wraps to a number beyond any size.
  const unsigned h = p + static_cast<unsigned>(from.offsets[2 * n]);
  Row result{};
  if (h >= static_cast<unsigned>(shape.h)) return result;
  const unsigned pitch = shape.w * shape.c;
  result.x = from.x + (n * shape.h + h) * pitch;
  result.mean = crop.mean_image ? from.mean + h * pitch : from.mean;
  if (from.noise != nullptr) result.noise = from.noise + n * shape.c;
  result.left = static_cast<unsigned>(from.offsets[2 * n + 1]);
  result.mirrored = from.mirror[n] != 0;
  return result;
}

__device__ float pixel(const Crop& crop, const Row& row, int q, int c) {
  const AugmentShape& shape = crop.shape;
  const unsigned w = row.left + (row.mirrored ? shape.q - 1 - q : q);
  if (row.x == nullptr || w >= static_cast<unsigned>(shape.w)) return 0.0f;
  const unsigned place = w * shape.c + c;
  const float noise = row.noise == nullptr ? 0.0f : row.noise[c];
  const float mean = row.mean[crop.mean_image ? place : c];
  return crop.scale * (static_cast<float>(row.x[place]) + noise - mean);
}

__global__ void __launch_bounds__(kBlockThreads) augment_kernel(Crop crop, Images from, float* y) {
  const unsigned number = blockIdx.x * kBlockRows + threadIdx.x / kWarpLanes;
  if (number >= crop.rows) return;
  const Row row = row_of(crop, from, number);
  float* to = y + number * crop.length;
  for (unsigned i = 4 * (threadIdx.x % kWarpLanes); i < crop.length; i += 4 * kWarpLanes) {
    unsigned column = i;
    int c = crop.by_c.split(&column), q = static_cast<int>(column);
    float values[4];
    for (int t = 0; t < 4; ++t) {
      values[t] = pixel(crop, row, q, c);  // past the end of the row of no harm, and not stored
      if (++c == crop.shape.c) {
        c = 0;
        ++q;
      }
    }
    if (crop.vectors) {
      store4(to + i, make_float4(values[0], values[1], values[2], values[3]));
    } else {
      for (unsigned t = 0; t < 4; ++t) {
        if (i + t < crop.length) to[i + t] = values[t];
      }
    }
  }
}

}  // namespace

template <>
void augment(const AugmentShape& shape, const std::uint8_t* x, const std::int32_t* offsets,
             const std::uint8_t* mirror, const float* noise, const float* mean, float scale,
             float* y, Stream stream) {
  Crop crop;
  crop.shape = shape;
  crop.rows = static_cast<unsigned>(shape.n) * static_cast<unsigned>(shape.p);
  crop.length = static_cast<unsigned>(shape.q) * static_cast<unsigned>(shape.c);
  crop.by_p = FastDivmod(shape.p);
  crop.by_c = FastDivmod(shape.c);
  crop.scale = scale;
  crop.vectors = crop.length % 4 == 0 && aligned16(y);
  crop.mean_image = shape.mean_h == shape.h && shape.mean_w == shape.w;
  launch("augment", augment_kernel, blocks_for(crop.rows, kBlockRows), dim3(kBlockThreads), 0,
         stream, crop, Images{x, offsets, mirror, noise, mean}, y);
}

}  // namespace convnet
