// Gradient of a convolution's filters, stride 1, with Hopper's wgmma and TMA; TF32 and bfloat16.
//
//   dw[k,r,s,c] = sum_{n,p,q} dy[n,p,q,k] x[n, p - pad_h + r, q - pad_w + s, gC + c]
//   db[k]       = sum_{n,p,q} dy[n,p,q,k]
//   D[m, j] = sum_i A[m, i] B[j, i]:   m = (c,r,s),  j = filter of the group,  i = pixel (n,p,q)
//
// Tensors: x [N,H,W,C], dy [N,P,Q,K]: read. dw [K,R,S,C/G], db [K] or null: written.
// Mapping. A block computes all taps of some sixteens of channels (up to 32 *pieces*, of a tap and
// 16 channels each) x 64 filters, over the pixels of its split. The pixels that all taps see, x's
// *slab* (wgmma.cuh), are fetched once by TMA; a tap's product is that of the slab shifted by it.
// In an implicit product each pixel is read R S times from L2, which limits it.
//
//   2 warpgroups   four pieces to a wgmma of 64 rows, one to each warp. A, x transposed, is read
//                  from the slab by float2 (two channels of a pixel are rows r and r + 8 of the
//                  wgmma), rounded, and handed to wgmma in registers.
//   1 warpgroup    produces: one thread starts the slabs' copies. All transpose dy, which wgmma
//                  wants in shared memory pixel by pixel for each filter: a thread reads eight
//                  pixels of one filter, 32 filters side by side, rounds and stores them by 16
//                  bytes. It adds them up for db too.
//
// Splits, slabs and the order of sums are functions of the shape (wgmma_plan.cu); the splits' sums
// are in the workspace and added in order. Cost: 2 N P Q K R S C/G flops; for 64 filters and the
// sixteens of a tile, 64 floats of dy a pixel and a slab of x (in AlexNet 1.6 to 2 times its
// pixels).
#include "gemm.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/mma.h"
#include "kernels/device/sm90.h"
#include "kernels/device/vectors.h"
#include "kernels/warp.cuh"
#include "mma.cuh"
#include "splits.cuh"
#include "wgmma.cuh"

namespace convnet {
namespace {

constexpr int kPixelsAtOnce = 32;  // whose dy a producer has in registers: two stages

template <Precision kPrecision>
struct WgradStage {
  static constexpr int kRowBytes = kSlabK * (kPrecision == Precision::kBf16 ? 2 : 4);
  static constexpr int kBytes = kWgradFilters * kRowBytes;
};

struct WgradParameters {
  unsigned rows;  // pixels of dy
  unsigned taps_h, taps_w;
  unsigned group_c, group_k, filters, groups;  // the third: of all groups
  unsigned sixteens, tiles_c, tiles_k;
  unsigned slab_rows, each;  // pixels of a slab; slabs of a split
  SlabShape slab;
  unsigned sixteen_bytes, slab_bytes;  // of one sixteen's slab, and of all
  std::int64_t outputs;
  bool vector_out;
};

// What a block computes.
struct WgradPlace {
  unsigned first_filter, first_channel, sixteens, group, split;
  unsigned begin, end;  // pixels

  __device__ explicit WgradPlace(const WgradParameters& s) {
    unsigned rest = blockIdx.x;
    first_filter = rest % s.tiles_k * kWgradFilters;
    rest /= s.tiles_k;
    first_channel = rest % s.tiles_c * s.sixteens * kSlabK;
    rest /= s.tiles_c;
    group = rest % s.groups;
    split = rest / s.groups;
    sixteens = min(s.sixteens, (s.group_c - first_channel) / kSlabK);
    begin = split * s.each * s.slab_rows;
    end = min(begin + s.each * s.slab_rows, s.rows);
  }
};

// Shared memory from aligned_shared() on: two slabs, the ring, and for each slab where the pixels
// of the result begin in it, in bytes.
struct WgradShared {
  unsigned char *slabs, *ring;
  unsigned* starts;

  template <int kStageBytes>
  __device__ static WgradShared at(const WgradParameters& s) {
    WgradShared shared;
    shared.slabs = aligned_shared();
    shared.ring = shared.slabs + 2 * s.slab_bytes;
    shared.starts = reinterpret_cast<unsigned*>(shared.ring + kWgradStages * kStageBytes);
    return shared;
  }
};

using WgradBarriers = Barriers<kWgradStages>;

// The pixel of 16 that a lane reads l-th: its place picks one of 0, 1, 4, 5, l is worth 0, 2, 8,
// 10. Shared memory serves half a warp at once, 32 bytes of four pixels each. The slab's swizzle
// puts those of pixels that are 4 apart into banks that differ, and of neighbours too; 2 apart it
// does not.
__device__ constexpr unsigned pixel_of(unsigned place, unsigned l) {
  return place % 2 + place / 2 * 4 + l % 2 * 2 + l / 2 * 8;
}

// ---- producers ---------------------------------------------------------------------------------

// Eight successive pixels of one filter, into row `filter` of a stage.
template <Precision kPrecision>
__device__ inline void store_pixels(unsigned char* stage, unsigned filter, unsigned half,
                                    const float (&v)[8]) {
  const auto piece = [&](unsigned i) {
    constexpr unsigned kRow = WgradStage<kPrecision>::kRowBytes;
    const unsigned swizzled = i ^ (filter * kRow / 128 & (kRow / 16 - 1));
    return reinterpret_cast<float*>(stage + filter * kRow + swizzled * 16);
  };
  if constexpr (kPrecision == Precision::kBf16) {
    unsigned pairs[4];  // PixelPairs: a lane's first two pixels
#pragma unroll
    for (int i = 0; i < 4; ++i) pairs[i] = pack_bf16(v[pixel_of(i, 0)], v[pixel_of(i, 1)]);
    store4(piece(half), make_float4(__uint_as_float(pairs[0]), __uint_as_float(pairs[1]),
                                    __uint_as_float(pairs[2]), __uint_as_float(pairs[3])));
  } else {
    const auto rounded = [&](int i) {
      return __uint_as_float(rounded_to_tf32(__float_as_uint(v[i])));
    };
#pragma unroll
    for (int l = 0; l < 2; ++l) {
      store4(piece(2 * half + l), make_float4(rounded(pixel_of(0, l)), rounded(pixel_of(1, l)),
                                              rounded(pixel_of(2, l)), rounded(pixel_of(3, l))));
    }
  }
}

template <Precision kPrecision>
__device__ inline void produce(const WgradParameters& s, const TensorMap& image, const float* dy,
                               float* db_sums, WgradBarriers& barriers) {
  const WgradPlace place(s);
  const WgradShared shared = WgradShared::at<WgradStage<kPrecision>::kBytes>(s);
  const unsigned thread = threadIdx.x - kConsumers;
  const unsigned filter = thread % kWgradFilters, half = thread / kWgradFilters;
  const bool valid = place.first_filter + filter < s.group_k;
  const unsigned column = place.group * s.group_k + place.first_filter + filter;
  const auto load = [&](float (&v)[2][8], unsigned pixel) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const unsigned from = pixel + i / 8 * 16 + half * 8 + i % 8;
      v[i / 8][i % 8] = valid && from < place.end ? __ldg(dy + (from * s.filters + column)) : 0.0f;
    }
  };

  RingPlace<2> at;
  RingPlace<kWgradStages> stage;
  float now[2][8], next[2][8], sum = 0.0f;
  load(next, place.begin);
  unsigned left = 0;  // of the slab, in kPixelsAtOnce
  for (unsigned pixel = place.begin; pixel < place.end; pixel += kPixelsAtOnce) {
    if (left == 0) {
      left = s.slab_rows / kPixelsAtOnce;
      const unsigned end = min(pixel + s.slab_rows, place.end);
      const Slab slab(s.slab, pixel, end);
      mbarrier_wait(&barriers.slab_empty[at.slot], at.parity ^ 1);
      for (unsigned i = thread; i < s.slab_rows; i += kProducers) {
        shared.starts[at.slot * s.slab_rows + i] =
            slab.pixel(min(pixel + i, end - 1)) * kPixelBytes;
      }
      Mbarrier* full = &barriers.slab_full[at.slot];
      if (thread == 0) {
        mbarrier_arrive_expect(full, slab.bytes() * place.sixteens);
        for (unsigned i = 0; i < place.sixteens; ++i) {
          slab.fetch(image, place.group * s.group_c + place.first_channel + i * kSlabK,
                     shared.slabs + at.slot * s.slab_bytes + i * s.sixteen_bytes, full);
        }
      } else {
        mbarrier_arrive(full);
      }
      at.advance();
    }
    --left;
#pragma unroll
    for (int i = 0; i < 16; ++i) now[i / 8][i % 8] = next[i / 8][i % 8];
    if (pixel + kPixelsAtOnce < place.end) load(next, pixel + kPixelsAtOnce);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      mbarrier_wait(&barriers.empty[stage.slot], stage.parity ^ 1);
      store_pixels<kPrecision>(shared.ring + stage.slot * WgradStage<kPrecision>::kBytes, filter,
                               half, now[i]);
      fence_shared_writes();
      mbarrier_arrive(&barriers.full[stage.slot]);
      stage.advance();
#pragma unroll
      for (int j = 0; j < 8; ++j) sum += now[i][j];
    }
  }
  if (db_sums != nullptr && place.first_channel == 0 && valid) {
    db_sums[(place.split * 2 + half) * s.filters + column] = sum;
  }
}

// ---- consumers ---------------------------------------------------------------------------------

// A of a warp for 16 pixels, from the four that the lane has read, in two channels, which are rows
// group and group + 8.
template <Precision kPrecision>
struct PixelPairs {
  unsigned a[2][4];
  __device__ void set(const float2 (&v)[4]) {
#pragma unroll
    for (int l = 0; l < 4; ++l) {
      a[l / 2][l % 2 * 2] = rounded_to_tf32(__float_as_uint(v[l].x));
      a[l / 2][l % 2 * 2 + 1] = rounded_to_tf32(__float_as_uint(v[l].y));
    }
  }
  __device__ void keep() { keep_in_place(a[0]), keep_in_place(a[1]); }
  __device__ void multiply(float (&sums)[8][4], std::uint64_t b) {
    wgmma_tf32<true>(sums, a[0], b);
    wgmma_tf32<true>(sums, a[1], b + 32 / 16);  // 8 k further on
  }
};
template <>
struct PixelPairs<Precision::kBf16> {
  unsigned a[4];
  __device__ void set(const float2 (&v)[4]) {
#pragma unroll
    for (int l = 0; l < 2; ++l) {
      a[2 * l] = pack_bf16(v[2 * l].x, v[2 * l + 1].x);
      a[2 * l + 1] = pack_bf16(v[2 * l].y, v[2 * l + 1].y);
    }
  }
  __device__ void keep() { keep_in_place(a); }
  __device__ void multiply(float (&sums)[8][4], std::uint64_t b) { wgmma_bf16<true>(sums, a, b); }
};

// Piece i of this warp: the wgmma are dealt out to the warpgroups in turn, their rows to the warps.
__device__ inline unsigned piece_of_warp(int i) {
  return (i * 2 + threadIdx.x / 128) * 4 + threadIdx.x / 32 % 4;
}

template <Precision kPrecision>
__device__ inline void consume(const WgradParameters& s, WgradBarriers& barriers, float* dw) {
  const WgradPlace place(s);
  const WgradShared shared = WgradShared::at<WgradStage<kPrecision>::kBytes>(s);
  const unsigned lane = threadIdx.x % 32, taps = s.taps_h * s.taps_w;
  const unsigned pieces = taps * place.sixteens;
  const unsigned mine = ((pieces + 3) / 4 + 1 - threadIdx.x / 128) / 2;  // wgmma of the warpgroup
  unsigned shift[kWgradPieces];  // of a piece in the slabs, in bytes
  float sums[kWgradPieces][8][4];
#pragma unroll
  for (int i = 0; i < kWgradPieces; ++i) {
    const unsigned piece = min(piece_of_warp(i), pieces - 1), tap = piece % taps;
    shift[i] = piece / taps * s.sixteen_bytes +
               (tap / s.taps_w * s.slab.pitch + tap % s.taps_w) * kPixelBytes;
#pragma unroll
    for (int j = 0; j < 32; ++j) sums[i][j / 4][j % 4] = 0.0f;
  }

  RingPlace<2> at;
  RingPlace<kWgradStages> stage;
  PixelPairs<kPrecision> pixels[2];
  for (unsigned first = place.begin; first < place.end; first += s.slab_rows) {
    mbarrier_wait(&barriers.slab_full[at.slot], at.parity);
    const unsigned slab = shared_address(shared.slabs) + at.slot * s.slab_bytes + lane / 4 * 8;
    const unsigned* starts = shared.starts + at.slot * s.slab_rows + pixel_of(lane % 4, 0);
    const unsigned count = min(s.slab_rows, place.end - first);
    const unsigned steps = (count + kPixelsAtOnce - 1) / kPixelsAtOnce * 2;
    for (unsigned step = 0; step < steps; ++step) {
      unsigned from[4];
#pragma unroll
      for (int l = 0; l < 4; ++l) from[l] = slab + starts[step * 16 + pixel_of(0, l)];
      mbarrier_wait(&barriers.full[stage.slot], stage.parity);
      const std::uint64_t b = wgmma_descriptor<WgradStage<kPrecision>::kRowBytes>(
          shared.ring + stage.slot * WgradStage<kPrecision>::kBytes);
#pragma unroll
      for (int i = 0; i < kWgradPieces; ++i) {
        if (static_cast<unsigned>(i) >= mine) break;
        float2 v[4];
#pragma unroll
        for (int l = 0; l < 4; ++l) {
          v[l] = load_pair(swizzled(from[l] + shift[i]));
        }
        if (i >= 2) wgmma_wait<1>();  // the one before the last, which has these registers
        pixels[i % 2].keep();
        pixels[i % 2].set(v);
        pixels[i % 2].keep();
        keep_in_place(sums[i]);
        wgmma_fence();
        pixels[i % 2].multiply(sums[i], b);
        wgmma_commit();
      }
      wgmma_wait<0>();
#pragma unroll
      for (int i = 0; i < kWgradPieces; ++i) keep_in_place(sums[i]);
      pixels[0].keep(), pixels[1].keep();
      release(&barriers.empty[stage.slot]);
      stage.advance();
    }
    release(&barriers.slab_empty[at.slot]);
    at.advance();
  }

  const unsigned length = taps * s.group_c;
  float* out = dw + place.split * s.outputs;
#pragma unroll
  for (int i = 0; i < kWgradPieces; ++i) {
    const unsigned piece = piece_of_warp(i);
    if (piece >= pieces) continue;
    const unsigned channel = place.first_channel + piece / taps * kSlabK + lane / 4 * 2;
    const unsigned column = piece % taps * s.group_c + channel;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const unsigned filter = place.first_filter + j / 2 * 8 + lane % 4 * 2 + j % 2;
      if (filter >= s.group_k) continue;
      float* to = out + ((place.group * s.group_k + filter) * length + column);
      const float2 pair = make_float2(sums[i][j / 2][j % 2], sums[i][j / 2][2 + j % 2]);
      if (s.vector_out) {
        *reinterpret_cast<float2*>(to) = pair;
      } else {
        to[0] = pair.x;
        to[1] = pair.y;
      }
    }
  }
}

template <Precision kPrecision>
__global__ void __launch_bounds__(kConsumers + kProducers, 1)
    wgmma_wgrad_kernel(const WgradParameters parameters, const __grid_constant__ TensorMap image,
                       const float* dy, float* dw, float* db_sums) {
  if constexpr (kCompiledForHopper) {
    __shared__ __align__(16) WgradBarriers barriers;
    if (threadIdx.x == 0) {
      barriers.init(kProducers, kProducers);
      mbarrier_init_done();
    }
    __syncthreads();
    if (threadIdx.x >= kConsumers) {
      give_registers_back<72>();
      produce<kPrecision>(parameters, image, dy, db_sums, barriers);
    } else {
      take_registers<216>();
      consume<kPrecision>(parameters, barriers, dw);
    }
  }
}

}  // namespace

void wgmma_wgrad(OpName op, const GemmPlan& gemm, const float* x, const float* dy, float* dw,
                 float* db, Workspace workspace, Stream stream) {
  const ConvShape& s = gemm.shape;
  const WgmmaWgradPlan& plan = gemm.wgmma_wgrad;
  WgradParameters parameters{};
  parameters.rows = static_cast<unsigned>(s.n * s.p * s.q);
  parameters.taps_h = static_cast<unsigned>(s.r);
  parameters.taps_w = static_cast<unsigned>(s.s);
  parameters.group_c = static_cast<unsigned>(s.c / s.groups);
  parameters.group_k = static_cast<unsigned>(s.k / s.groups);
  parameters.filters = static_cast<unsigned>(s.k);
  parameters.groups = static_cast<unsigned>(s.groups);
  parameters.sixteens = plan.sixteens;
  parameters.tiles_c = plan.tiles_c;
  parameters.tiles_k = plan.tiles_k;
  parameters.slab_rows = static_cast<unsigned>(plan.slab.pixels);
  parameters.each = plan.each;
  parameters.slab = slab_shape(s, plan.slab);
  parameters.sixteen_bytes = plan.slab.slab_bytes();
  parameters.slab_bytes = plan.sixteens * parameters.sixteen_bytes;
  parameters.outputs = plan.outputs;

  float* partials = floats_in(op, plan.workspace_floats(s.k), workspace);
  float* db_sums = db == nullptr ? nullptr : partials + plan.partial_floats();
  float* out = plan.splits == 1 ? dw : partials;
  parameters.vector_out = aligned16(out);
  const TensorMap map =
      pixel_row_map(op, x, s.n, s.h, s.w, s.c, static_cast<int>(plan.slab.slab_pixels));
  const dim3 blocks(plan.tiles_c * plan.tiles_k * parameters.groups * plan.splits);
  const auto run = [&](auto kernel, int stage_bytes) {
    const std::size_t bytes = 1024 + 2 * std::size_t{parameters.slab_bytes} +
                              kWgradStages * std::size_t(stage_bytes) +
                              2 * 4 * std::size_t{parameters.slab_rows};
    launch(op, kernel, blocks, dim3(kConsumers + kProducers), bytes, stream, parameters, map, dy,
           out, db_sums);
  };
  if (gemm.precision == Precision::kBf16) {
    run(wgmma_wgrad_kernel<Precision::kBf16>, WgradStage<Precision::kBf16>::kBytes);
  } else {
    run(wgmma_wgrad_kernel<Precision::kTf32>, WgradStage<Precision::kTf32>::kBytes);
  }
  const SplitResult<float> weights{
      partials, plan.splits, plan.outputs, parameters.group_c, plan.splits > 1 ? dw : nullptr, {}};
  const SplitResult<float> biases{db_sums, 2 * plan.splits, s.k, s.k, db, {}};
  if (db != nullptr) {
    sum_splits(op, weights, biases, stream);
  } else if (plan.splits > 1) {
    sum_splits(op, weights, stream);
  }
}

}  // namespace convnet
