// Crop, mirror, colour noise and mean subtraction, from bytes to floats (paper, section 4.1).
//   y[n,p,q,c] = scale * (x[n, h, w, c] + noise[n,c] - mean[h,w,c]);  h = p + offset_h[n]
//   w = offset_w[n] + (mirror[n] ? Q - 1 - q : q);  a place outside x gives 0 (the mean)
//
// Tensors:  x [N, H, W, C] uint8, offsets [N, 2] int32 (rows, columns), mirror [N] uint8, noise
//           [N, C] or null, mean [H, W, C] or [1, 1, C], all read; y [N, P, Q, C] written.
// Mapping:  a thread takes four neighbouring elements of y, taken as one line: the first element's
//           indices cost three divisions, the next ones count on. They are stored with one 128-bit
//           access where y is aligned to 16 bytes. No shared memory, no barriers.
// Edges:    the last count % 4 elements of y go singly. Offsets may be any integers: whether a place
//           is inside is decided in arithmetic modulo 2^32, where no sum can pass for another.
// Limits:   4 bytes written and 1 read an element, and the mean, which stays in the L2 cache.
#include "device.h"
#include "divider.cuh"
#include "ops.h"
#include "warp.cuh"

namespace convnet {
namespace {

struct Crop {
  AugmentShape shape;
  unsigned count;  // elements of y
  Divider by_c, by_q, by_p;
  float scale;
  bool aligned;  // y, to 16 bytes
};

struct Pictures {
  const std::uint8_t* x;
  const std::int32_t* offsets;
  const std::uint8_t* mirror;
  const float* noise;
  const float* mean;
};

struct Position {
  unsigned n;
  int p, q, c;
};

__device__ float pixel(const Crop& crop, const Pictures& from, const Position& at) {
  const AugmentShape& shape = crop.shape;
  const int column = from.mirror[at.n] != 0 ? shape.q - 1 - at.q : at.q;
  // A place left of or above the picture wraps to a number beyond any size.
  const unsigned h = static_cast<unsigned>(at.p) + static_cast<unsigned>(from.offsets[2 * at.n]);
  const unsigned w =
      static_cast<unsigned>(column) + static_cast<unsigned>(from.offsets[2 * at.n + 1]);
  if (h >= static_cast<unsigned>(shape.h) || w >= static_cast<unsigned>(shape.w)) return 0.0f;
  const unsigned place = h * shape.w + w;
  const unsigned mean_place = shape.mean_h == 1 && shape.mean_w == 1 ? 0 : place;
  const float value = static_cast<float>(
      from.x[(at.n * static_cast<unsigned>(shape.h * shape.w) + place) * shape.c + at.c]);
  const float noise = from.noise == nullptr ? 0.0f : from.noise[at.n * shape.c + at.c];
  return crop.scale * (value + noise - from.mean[mean_place * shape.c + at.c]);
}

// The next element of y.
__device__ void advance(const AugmentShape& shape, Position* at) {
  if (++at->c < shape.c) return;
  at->c = 0;
  if (++at->q < shape.q) return;
  at->q = 0;
  if (++at->p < shape.p) return;
  at->p = 0;
  ++at->n;
}

__global__ void __launch_bounds__(kBlockThreads) augment_kernel(Crop crop, Pictures from, float* y) {
  const unsigned first = 4 * global_thread();
  if (first >= crop.count) return;
  Position at;
  at.n = first;
  at.c = crop.by_c.split(&at.n);
  at.q = crop.by_q.split(&at.n);
  at.p = crop.by_p.split(&at.n);
  float values[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  const unsigned left = crop.count - first;
  for (unsigned t = 0; t < 4; ++t) {
    if (t < left) values[t] = pixel(crop, from, at);
    advance(crop.shape, &at);
  }
  if (crop.aligned && left >= 4) {
    store4(y + first, make_float4(values[0], values[1], values[2], values[3]));
  } else {
    for (unsigned t = 0; t < 4; ++t) {
      if (t < left) y[first + t] = values[t];
    }
  }
}

}  // namespace

void augment(const AugmentShape& shape, const std::uint8_t* x, const std::int32_t* offsets,
             const std::uint8_t* mirror, const float* noise, const float* mean, float scale,
             float* y, Stream stream) {
  const std::int64_t count = std::int64_t{shape.n} * shape.p * shape.q * shape.c;
  Crop crop;
  crop.shape = shape;
  crop.count = static_cast<unsigned>(count);
  crop.by_c = Divider(shape.c);
  crop.by_q = Divider(shape.q);
  crop.by_p = Divider(shape.p);
  crop.scale = scale;
  crop.aligned = aligned16(y);
  launch("augment", augment_kernel, blocks_for(count, 4 * kBlockThreads), dim3(kBlockThreads), 0,
         stream, crop, Pictures{x, offsets, mirror, noise, mean}, y);
}

}  // namespace convnet
