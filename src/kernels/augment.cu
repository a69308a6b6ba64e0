// Crop, mirror, turn, colour noise and mean subtraction, from bytes to numbers (paper, section 4.1).
//   y[n,p,q,c] = scale * v[h, w];  v = x[n, h, w, c] + noise[n,c] - mean[h,w,c], and 0 (the mean) at
//   a place outside x.  h = p + offset_h[n];  w = offset_w[n] + (mirror[n] ? Q - 1 - q : q)
//   With affine: (h, w) = centre + affine[n] (that place - centre), and v is interpolated linearly
//   between the four pixels around it (Jaderberg et al., "Spatial transformer networks", NIPS 2015,
//   equation 5).
//
// Tensors:  x [N, H, W, C] uint8, offsets [N, 2] int32 (rows, columns), mirror [N] uint8, affine
//           [N, 2, 2] or null, noise [N, C] or null, mean [H, W, C] or [1, 1, C], all read; y
//           [N, P, Q, C] written, float32 or bfloat16.
// Mapping:  a warp takes a row of a crop, so that what depends on the image and the row is the
//           same in all lanes; a lane takes four neighbouring elements at a time, and stores them
//           by one access where Q C is a multiple of four and y aligned to as many. No shared
//           memory, no barriers.
// Edges:    the last Q C % 4 elements of a row go singly. Offsets may be any integers: whether a
//           place is inside is decided in arithmetic modulo 2^32, where no sum passes for another;
//           with affine in float32, before anything becomes an integer.
// Limits:   4 bytes (bfloat16: 2) written and 1 read an element, and the mean, which stays in the L2 cache; about
//           35 instructions an element, which is about as long as the memory takes. With affine
//           the same bytes come from memory, but four neighbours are read through the L1 cache and
//           weighted: about 80 instructions an element, which is more than twice what memory takes.
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
  bool vectors;     // four elements are stored at once
  bool mean_image;  // mean is [H, W, C]
};

struct Images {
  const std::uint8_t* x;
  const std::int32_t* offsets;
  const std::uint8_t* mirror;
  const float* affine;  // or null: none
  const float* noise;
  const float* mean;
};

// A row of a crop; null pointers where it lies outside the image.
struct Row {
  const std::uint8_t* x;
  const float* mean;
  const float* noise;  // or null: none
  unsigned left;       // the crop's first column in the image
  bool mirrored;

  __device__ Row(const Crop& crop, const Images& from, unsigned n, unsigned p) {
    const AugmentShape& shape = crop.shape;
    x = nullptr;
    // A place above or left of the image wraps to a number beyond any size.
    const unsigned h = p + static_cast<unsigned>(from.offsets[2 * n]);
    if (h >= static_cast<unsigned>(shape.h)) return;
    const unsigned pitch = shape.w * shape.c;
    x = from.x + (n * shape.h + h) * pitch;
    mean = crop.mean_image ? from.mean + h * pitch : from.mean;
    noise = from.noise == nullptr ? nullptr : from.noise + n * shape.c;
    left = static_cast<unsigned>(from.offsets[2 * n + 1]);
    mirrored = from.mirror[n] != 0;
  }

  __device__ float at(const Crop& crop, int q, int c) const {
    const AugmentShape& shape = crop.shape;
    const unsigned w = left + (mirrored ? shape.q - 1 - q : q);
    if (x == nullptr || w >= static_cast<unsigned>(shape.w)) return 0.0f;
    const unsigned place = w * shape.c + c;
    const float shift = noise == nullptr ? 0.0f : noise[c];
    return crop.scale * (static_cast<float>(x[place]) + shift - mean[crop.mean_image ? place : c]);
  }
};

// A row of a crop whose places are turned about its centre.
struct TurnedRow {
  const std::uint8_t* x;  // the image
  const float* mean;
  const float* noise;  // or null: none
  float h, w;          // the place of the middle of the row
  float step_h, step_w;
  bool mirrored;

  __device__ TurnedRow(const Crop& crop, const Images& from, unsigned n, unsigned p) {
    const AugmentShape& shape = crop.shape;
    x = from.x + n * shape.h * shape.w * shape.c;
    mean = from.mean;
    noise = from.noise == nullptr ? nullptr : from.noise + n * shape.c;
    const float* a = from.affine + 4 * n;
    const float middle_p = 0.5f * static_cast<float>(shape.p - 1);
    const float middle_q = 0.5f * static_cast<float>(shape.q - 1);
    const float below = static_cast<float>(p) - middle_p;
    h = static_cast<float>(from.offsets[2 * n]) + middle_p + a[0] * below;
    w = static_cast<float>(from.offsets[2 * n + 1]) + middle_q + a[2] * below;
    step_h = a[1];
    step_w = a[3];
    mirrored = from.mirror[n] != 0;
  }

  __device__ float at(const Crop& crop, int q, int c) const {
    const AugmentShape& shape = crop.shape;
    const float middle = 0.5f * static_cast<float>(shape.q - 1);
    const float right = static_cast<float>(mirrored ? shape.q - 1 - q : q) - middle;
    const float at_h = h + step_h * right, at_w = w + step_w * right;
    if (isnan(at_h + at_w)) return at_h + at_w;
    if (!(at_h > -1.0f && at_h < static_cast<float>(shape.h) && at_w > -1.0f &&
          at_w < static_cast<float>(shape.w))) {
      return 0.0f;
    }
    const float top = floorf(at_h), left = floorf(at_w);
    const float down = at_h - top, across = at_w - left;
    const int first_h = static_cast<int>(top), first_w = static_cast<int>(left);
    float sum = 0.0f;
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 2; ++j) {
        const float share = (i == 0 ? 1.0f - down : down) * (j == 0 ? 1.0f - across : across);
        sum = add(crop, first_h + i, first_w + j, c, share, sum);
      }
    }
    return crop.scale * sum;
  }

  // sum + share * v[row, column]; -1 wraps to a number beyond any size.
  __device__ float add(const Crop& crop, unsigned row, unsigned column, int c, float share,
                       float sum) const {
    const AugmentShape& shape = crop.shape;
    if (row >= static_cast<unsigned>(shape.h) || column >= static_cast<unsigned>(shape.w)) {
      return sum;
    }
    const unsigned place = (row * shape.w + column) * shape.c + c;
    const float shift = noise == nullptr ? 0.0f : noise[c];
    return sum + share * (static_cast<float>(x[place]) + shift - mean[crop.mean_image ? place : c]);
  }
};

template <class Place, class T>
__global__ void __launch_bounds__(kBlockThreads) augment_kernel(Crop crop, Images from, T* y) {
  const unsigned number = blockIdx.x * kBlockRows + threadIdx.x / kWarpLanes;
  if (number >= crop.rows) return;
  unsigned n = number;
  const auto p = static_cast<unsigned>(crop.by_p.split(&n));
  const Place row(crop, from, n, p);
  T* to = y + number * crop.length;
  for (unsigned i = 4 * (threadIdx.x % kWarpLanes); i < crop.length; i += 4 * kWarpLanes) {
    unsigned column = i;
    int c = crop.by_c.split(&column), q = static_cast<int>(column);
    float values[4];
    for (int t = 0; t < 4; ++t) {
      values[t] = row.at(crop, q, c);  // past the end of the row of no harm, and not stored
      if (++c == crop.shape.c) {
        c = 0;
        ++q;
      }
    }
    if (crop.vectors) {
      store4(to + i, make_float4(values[0], values[1], values[2], values[3]));
    } else {
      for (unsigned t = 0; t < 4; ++t) {
        if (i + t < crop.length) store(to + i + t, values[t]);
      }
    }
  }
}

}  // namespace

template <class T>
void augment(const AugmentShape& shape, const std::uint8_t* x, const std::int32_t* offsets,
             const std::uint8_t* mirror, const float* affine, const float* noise, const float* mean,
             float scale, T* y, Stream stream) {
  Crop crop;
  crop.shape = shape;
  crop.rows = static_cast<unsigned>(shape.n) * static_cast<unsigned>(shape.p);
  crop.length = static_cast<unsigned>(shape.q) * static_cast<unsigned>(shape.c);
  crop.by_p = FastDivmod(shape.p);
  crop.by_c = FastDivmod(shape.c);
  crop.scale = scale;
  crop.vectors = crop.length % 4 == 0 && aligned4(y);
  crop.mean_image = shape.mean_h == shape.h && shape.mean_w == shape.w;
  const Images from{x, offsets, mirror, affine, noise, mean};
  const dim3 blocks = blocks_for(crop.rows, kBlockRows);
  if (affine == nullptr) {
    launch("augment", augment_kernel<Row, T>, blocks, dim3(kBlockThreads), 0, stream, crop, from,
           y);
  } else {
    launch("augment", augment_kernel<TurnedRow, T>, blocks, dim3(kBlockThreads), 0, stream, crop,
           from, y);
  }
}

CONVNET_FOR_BOTH_TYPES(augment);

}  // namespace convnet
