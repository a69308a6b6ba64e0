// What the Hopper kernels share: slabs of pixels in shared memory, and rings of stages.
#pragma once

#include "kernels/device/sm90.h"
#include "wgmma_plan.cuh"

namespace convnet {

constexpr int kConsumers = 256;  // threads: two warpgroups that multiply
constexpr int kProducers = 128;  // the third, behind them, which feeds them
constexpr int kConsumerWarps = kConsumers / 32;

// ---- rings -------------------------------------------------------------------------------------

// A place in a ring of kStages, and the parity of the phase that fills it.
template <int kStages>
struct RingPlace {
  unsigned slot = 0, parity = 0;
  __device__ void advance() {
    if (++slot == kStages) {
      slot = 0;
      parity ^= 1;
    }
  }
};

// Two slabs and a ring of stages. By the thread that calls mbarrier_init_done() afterwards.
template <int kStages>
struct Barriers {
  Mbarrier slab_full[2], slab_empty[2], full[kStages], empty[kStages];

  // So many threads fill each of them.
  __device__ void init(unsigned slab_producers, unsigned producers) {
    for (int i = 0; i < 2; ++i) {
      mbarrier_init(&slab_full[i], slab_producers);
      mbarrier_init(&slab_empty[i], kConsumerWarps);
    }
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(&full[i], producers);
      mbarrier_init(&empty[i], kConsumerWarps);
    }
  }
};

// A warp of consumers has read what it waited for.
__device__ inline void release(Mbarrier* empty) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) mbarrier_arrive(empty);
}

// The dynamic array from its first byte at a multiple of 1024 on.
__device__ inline unsigned char* aligned_shared() {
  extern __shared__ __align__(128) unsigned char shared[];
  return shared + (1024 - shared_address(shared) % 1024) % 1024;
}

// ---- slabs -------------------------------------------------------------------------------------

// Where TMA puts the byte that would be at `address` if it did not swizzle (pixel_row_copy()), for
// pixels of so many bytes, 32 or 64: a slab begins at a multiple of 512.
template <int kPixelBytes>
__device__ inline unsigned swizzled(unsigned address) {
  return address ^ (address >> 3 & (kPixelBytes - 16u));
}

// All pixels, in some channels, that filters see from some successive pixels of the result: rows of
// pictures one below the other, `pitch` pixels each.
struct SlabShape {
  unsigned p, q, r;  // lines of a picture of the result, pixels of a line, rows of a filter
  unsigned pitch, pixel_bytes;
  int pad_h, pad_w;
};

inline SlabShape slab_shape(const ConvShape& s, const WgmmaPlan& plan) {
  return {static_cast<unsigned>(s.p),
          static_cast<unsigned>(s.q),
          static_cast<unsigned>(s.r),
          plan.slab_pixels,
          static_cast<unsigned>(plan.pixel_bytes),
          s.pad_h,
          s.pad_w};
}

// The slab of the pixels [begin, end) of the result. A line of the result is a row of a picture of
// it; successive ones share rows of the slab, but those of different pictures.
class Slab {
 public:
  __device__ Slab(const SlabShape& shape, unsigned begin, unsigned end) : shape_(shape) {
    first_line_ = begin / shape.q;
    last_line_ = (end - 1) / shape.q;
    first_picture_ = first_line_ / shape.p;
    last_picture_ = last_line_ / shape.p;
  }

  __device__ unsigned bytes() const {
    const unsigned lines = last_line_ - first_line_ + 1;
    const unsigned pictures = last_picture_ - first_picture_ + 1;
    return (lines + pictures * (shape_.r - 1)) * row_bytes();
  }

  // Starts its copies for the channels from `channel` on. `arrived` expects bytes().
  __device__ void fetch(const TensorMap& image, unsigned channel, unsigned char* to,
                        Mbarrier* arrived) const {
    for (unsigned picture = first_picture_; picture <= last_picture_; ++picture) {
      const unsigned begin = max(first_line_, picture * shape_.p);
      const unsigned end = min(last_line_, picture * shape_.p + shape_.p - 1) + shape_.r;
      for (unsigned line = begin; line < end; ++line) {
        pixel_row_copy(to, image, static_cast<int>(picture),
                       static_cast<int>(line - picture * shape_.p) - shape_.pad_h, -shape_.pad_w,
                       static_cast<int>(channel), arrived);
        to += row_bytes();
      }
    }
  }

  // Its pixel that the first tap sees from pixel m of the result. Tap (t, u) is t pitch + u
  // further.
  __device__ unsigned pixel(unsigned m) const {
    const unsigned line = m / shape_.q, picture = line / shape_.p;
    const unsigned row = line - first_line_ + (picture - first_picture_) * (shape_.r - 1);
    return row * shape_.pitch + m % shape_.q;
  }

 private:
  __device__ unsigned row_bytes() const { return shape_.pitch * shape_.pixel_bytes; }

  const SlabShape& shape_;
  unsigned first_line_, last_line_, first_picture_, last_picture_;
};

}  // namespace convnet
