// The operands of wgmma_wgrad.cu, which differ by what x and dy are: how producers read dy and store
// it transposed, and how consumers read x from a slab, as A of a wgmma.
//
//               dy                                        x
//   float32     a thread: 16 pixels of one filter, 32     two channels of a pixel by float2: rows r and
//               filters side by side, rounded to TF32     r + 8 of the wgmma; rounded to TF32
//   bfloat16    a thread: 8 pixels of two filters,        ldmatrix transposes: 8 channels by 8 pixels
//               64 filters side by side
#pragma once

#include "gemm.cuh"
#include "kernels/device/mma.h"
#include "kernels/device/sm90.h"
#include "kernels/device/vectors.h"
#include "mma_product.cuh"
#include "wgmma.cuh"

namespace convnet {

constexpr int kPixelsAtOnce = 32;  // whose dy the producers have in registers

template <class T>
constexpr unsigned kPieceBytes = kPieceK * sizeof(T);  // of a pixel of a slab

// A stage of the ring: dy of so many pixels, a row of 64 bytes for each filter, swizzled as
// wgmma_descriptor() says.
template <class T>
constexpr unsigned kStagePixels = kWgradRowBytes / sizeof(T);
constexpr int kWgradStageBytes = kWgradFilters * kWgradRowBytes;

// 16 bytes of a row.
__device__ inline float* piece_of_row(unsigned char* stage, unsigned filter, unsigned piece) {
  const unsigned row = filter * kWgradRowBytes;
  return reinterpret_cast<float*>(stage + row + ((piece ^ (row / 128 & 3)) * 16));
}

struct WgradParameters {
  unsigned rows;  // pixels of dy
  unsigned taps_h, taps_w;
  unsigned group_c, group_k, filters, groups;  // the third: of all groups
  unsigned sixteens, tiles_c, tiles_k;
  unsigned slab_rows, each;  // pixels of a slab; slabs of a split
  SlabShape slab;
  unsigned sixteen_bytes, slab_bytes;  // of one sixteen's slab, and of all
  std::int64_t outputs;
};

// What a block computes.
struct WgradPlace {
  unsigned first_filter, first_channel, sixteens, group, split;
  unsigned begin, end;  // pixels

  __device__ explicit WgradPlace(const WgradParameters& s) {
    unsigned rest = blockIdx.x;
    first_filter = rest % s.tiles_k * kWgradFilters;
    rest /= s.tiles_k;
    first_channel = rest % s.tiles_c * s.sixteens * kPieceK;
    rest /= s.tiles_c;
    group = rest % s.groups;
    split = rest / s.groups;
    sixteens = min(s.sixteens, (s.group_c - first_channel) / kPieceK);
    begin = split * s.each * s.slab_rows;
    end = min(begin + s.each * s.slab_rows, s.rows);
  }
};

using WgradBarriers = Barriers<kWgradStages>;

// ---- dy ----------------------------------------------------------------------------------------

// The pixel of 16 that a lane reads l-th: its place picks one of 0, 1, 4, 5, l is worth 0, 2, 8,
// 10. Shared memory serves half a warp at once, 32 bytes of four pixels each. The slab's swizzle
// puts those of pixels that are 4 apart into banks that differ, and of neighbours too; 2 apart it
// does not.
__device__ constexpr unsigned pixel_of(unsigned place, unsigned l) {
  return place % 2 + place / 2 * 4 + l % 2 * 2 + l / 2 * 8;
}

// Eight words of a column of dy, one for each pixel, of which the first `left` are there.
template <class Word, class T>
__device__ inline void load_column(const T* from, unsigned pitch, unsigned left, Word (&words)[8]) {
#pragma unroll
  for (unsigned i = 0; i < 8; ++i) {
    words[i] = i < left ? __ldg(reinterpret_cast<const Word*>(from)) : Word{};
    from += pitch;
  }
}

// A producer thread's part: load() and take() the pixels from a multiple of kPixelsAtOnce on, one
// set ahead of store(), which fills stages of the ring.
template <class T>
class TransposedDy;

template <>
class TransposedDy<float> {
 public:
  __device__ TransposedDy(const WgradParameters& s, const WgradPlace& place, const float* dy,
                          bool sums_wanted)
      : filter_((threadIdx.x - kConsumers) % kWgradFilters),
        half_((threadIdx.x - kConsumers) / kWgradFilters),
        filters_(s.filters),
        valid_(place.first_filter + filter_ < s.group_k),
        end_(valid_ ? place.end : 0),
        column_(place.group * s.group_k + place.first_filter + filter_),
        split_(place.split),
        sums_wanted_(sums_wanted),
        dy_(dy) {}

  __device__ void load(unsigned pixel) {
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned first = pixel + i * 16 + half_ * 8;
      load_column(dy_ + (first * filters_ + column_), filters_, first < end_ ? end_ - first : 0,
                  next_[i]);
    }
  }
  __device__ void take() {
#pragma unroll
    for (int i = 0; i < 16; ++i) now_[i / 8][i % 8] = next_[i / 8][i % 8];
  }
  __device__ void store(unsigned char* ring, WgradBarriers& barriers) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      mbarrier_wait(&barriers.empty[stage_.slot], stage_.parity ^ 1);
      store_pixels(ring + stage_.slot * kWgradStageBytes, now_[i]);
      fence_shared_writes();
      mbarrier_arrive(&barriers.full[stage_.slot]);
      stage_.advance();
      if (!sums_wanted_) continue;
#pragma unroll
      for (int j = 0; j < 8; ++j) sum_ += now_[i][j];
    }
  }
  __device__ void store_sums(float* db_sums) const {
    if (valid_) db_sums[(split_ * 2 + half_) * filters_ + column_] = sum_;
  }

 private:
  unsigned filter_, half_, filters_;
  bool valid_;
  unsigned end_, column_, split_;
  bool sums_wanted_;
  const float* dy_;
  RingPlace<kWgradStages> stage_;
  float now_[2][8], next_[2][8], sum_ = 0.0f;

  __device__ void store_pixels(unsigned char* stage, const float (&v)[8]) const {
    const auto rounded = [&](int i) {
      return __uint_as_float(rounded_to_tf32(__float_as_uint(v[i])));
    };
#pragma unroll
    for (int l = 0; l < 2; ++l) {
      store4(piece_of_row(stage, filter_, 2 * half_ + l),
             make_float4(rounded(pixel_of(0, l)), rounded(pixel_of(1, l)), rounded(pixel_of(2, l)),
                         rounded(pixel_of(3, l))));
    }
  }
};

// A warp has an eight of pixels.
template <>
class TransposedDy<Bfloat16> {
 public:
  __device__ TransposedDy(const WgradParameters& s, const WgradPlace& place, const Bfloat16* dy,
                          bool sums_wanted)
      : filter_(threadIdx.x % 32 * 2),
        eight_((threadIdx.x - kConsumers) / 32),
        filters_(s.filters),
        valid_(place.first_filter + filter_ < s.group_k),
        end_(valid_ ? place.end : 0),
        column_(place.group * s.group_k + place.first_filter + filter_),
        split_(place.split),
        sums_wanted_(sums_wanted),
        dy_(dy) {}

  __device__ void load(unsigned pixel) {
    const unsigned first = pixel + eight_ * 8;
    load_column(dy_ + (first * filters_ + column_), filters_, first < end_ ? end_ - first : 0,
                next_);
  }
  __device__ void take() {
#pragma unroll
    for (int i = 0; i < 8; ++i) now_[i] = next_[i];
  }
  __device__ void store(unsigned char* ring, WgradBarriers& barriers) {
    float4 rows[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) rows[i] = of_filter(i == 0 ? 0x5410u : 0x7632u);
    mbarrier_wait(&barriers.empty[stage_.slot], stage_.parity ^ 1);
    unsigned char* const stage = ring + stage_.slot * kWgradStageBytes;
    // Half the lanes begin with the second filter: so eight of them meet no bank twice.
    const unsigned swap = filter_ / 8 % 2;
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
      store4(piece_of_row(stage, filter_ + (i ^ swap), eight_), swap == i ? rows[0] : rows[1]);
    }
    fence_shared_writes();
    mbarrier_arrive(&barriers.full[stage_.slot]);
    stage_.advance();
    if (!sums_wanted_) return;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      sums_[0] += low_bf16(now_[i]);
      sums_[1] += high_bf16(now_[i]);
    }
  }
  __device__ void store_sums(float* db_sums) const {
    if (!valid_) return;
    float* const to = db_sums + ((split_ * 4 + eight_) * filters_ + column_);
    to[0] = sums_[0];
    to[1] = sums_[1];
  }

 private:
  unsigned filter_, eight_, filters_;
  bool valid_;
  unsigned end_, column_, split_;
  bool sums_wanted_;
  const Bfloat16* dy_;
  RingPlace<kWgradStages> stage_;
  unsigned now_[8], next_[8];
  float sums_[2] = {0.0f, 0.0f};

  // The eight pixels of one of the two filters.
  __device__ float4 of_filter(unsigned halves) const {
    const auto pair = [&](int i) {
      return __uint_as_float(__byte_perm(now_[i], now_[i + 1], halves));
    };
    return make_float4(pair(0), pair(2), pair(4), pair(6));
  }
};

// ---- x -----------------------------------------------------------------------------------------

// Where in a slab a lane reads a stage's pixels, from the address of the slab and the starts of
// these.
template <class T>
struct PixelPlaces;
// A of a warp for them: 16 channels, the rows, by the pixels, in two products. store(): the sums of
// the two rows that a lane of so many fours has, to out[channel].
template <class T>
struct ChannelRows;

template <>
struct PixelPlaces<float> {
  struct Read {
    float2 v[4];
  };
  unsigned from[4];

  __device__ PixelPlaces(unsigned slab, const unsigned* starts) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (int l = 0; l < 4; ++l)
      from[l] = slab + lane / 4 * 8 + starts[pixel_of(lane % 4, 0) + pixel_of(0, l)];
  }
  __device__ Read read(unsigned shift) const {
    Read read;
#pragma unroll
    for (int l = 0; l < 4; ++l) {
      read.v[l] = load_pair(swizzled<kPieceBytes<float>>(from[l] + shift));
    }
    return read;
  }
};
template <>
struct ChannelRows<float> {
  unsigned a[2][4];

  __device__ void set(const PixelPlaces<float>::Read& read) {
#pragma unroll
    for (int l = 0; l < 4; ++l) {
      a[l / 2][l % 2 * 2] = rounded_to_tf32(__float_as_uint(read.v[l].x));
      a[l / 2][l % 2 * 2 + 1] = rounded_to_tf32(__float_as_uint(read.v[l].y));
    }
  }
  __device__ void keep() { keep_in_place(a[0]), keep_in_place(a[1]); }
  __device__ void multiply(float (&sums)[8][4], std::uint64_t b) {
    wgmma_tf32<true>(sums, a[0], b);
    wgmma_tf32<true>(sums, a[1], b + 32 / 16);  // 32 bytes further on
  }
  __device__ static void store(float* out, unsigned four, float first, float second) {
    reinterpret_cast<float2*>(out)[four] = make_float2(first, second);
  }
};

template <>
struct PixelPlaces<Bfloat16> {
  struct Read {
    unsigned v[2][4];
  };
  unsigned from[2];

  // For ldmatrix: channels 0 ... 7 and 8 ... 15 of the first eight pixels, then of the next.
  __device__ PixelPlaces(unsigned slab, const unsigned* starts) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      from[i] = slab + lane / 8 % 2 * 16 + starts[i * 16 + lane % 8 + lane / 16 * 8];
    }
  }
  __device__ Read read(unsigned shift) const {
    Read read;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      ldmatrix<4, true>(read.v[i], swizzled<kPieceBytes<Bfloat16>>(from[i] + shift));
    }
    return read;
  }
};
template <>
struct ChannelRows<Bfloat16> {
  unsigned a[2][4];

  __device__ void set(const PixelPlaces<Bfloat16>::Read& read) {
#pragma unroll
    for (int l = 0; l < 8; ++l) a[l / 4][l % 4] = read.v[l / 4][l % 4];
  }
  __device__ void keep() { keep_in_place(a[0]), keep_in_place(a[1]); }
  __device__ void multiply(float (&sums)[8][4], std::uint64_t b) {
    wgmma_bf16<true>(sums, a[0], b);
    wgmma_bf16<true>(sums, a[1], b + 32 / 16);
  }
  __device__ static void store(float* out, unsigned four, float first, float second) {
    out[four] = first;
    out[four + 8] = second;
  }
};

}  // namespace convnet
