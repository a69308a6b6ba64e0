// Gradient of a convolution's filters, stride 1, with Hopper's wgmma and TMA, in TF32 and
// bfloat16.
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
//                  from the slab (ChannelRows) and handed to wgmma in registers.
//   1 warpgroup    produces: one thread starts the slabs' copies. All transpose dy, which wgmma
//                  wants in shared memory pixel by pixel for each filter, and add it up for db
//                  (TransposedDy).
//
// Both are in wgmma_wgrad_operands.cuh, for float32 arrays, of which TF32 is made, and for bfloat16.
// Splits, slabs and the order of sums are functions of the shape (wgmma_plan.cu); the splits' sums
// are in the workspace and added in order. Cost: 2 N P Q K R S C/G flops; for 64 filters and the
// sixteens of a tile, 64 elements of dy a pixel and a slab of x (in AlexNet 1.6 to 2 times its
// pixels).
#include "gemm.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/vectors.h"
#include "splits.cuh"
#include "wgmma.cuh"
#include "wgmma_wgrad_operands.cuh"

namespace convnet {
namespace {

// Shared memory from aligned_shared() on: two slabs, the ring, and for each slab where the pixels
// of the result begin in it, in bytes.
struct WgradShared {
  unsigned char *slabs, *ring;
  unsigned* starts;

  __device__ static WgradShared at(const WgradParameters& s) {
    WgradShared shared;
    shared.slabs = aligned_shared();
    shared.ring = shared.slabs + 2 * s.slab_bytes;
    shared.starts = reinterpret_cast<unsigned*>(shared.ring + kWgradStages * kWgradStageBytes);
    return shared;
  }
};

// ---- producers ---------------------------------------------------------------------------------

template <class T>
__device__ inline void produce(const WgradParameters& s, const TensorMap& image, const T* dy,
                               float* db_sums, WgradBarriers& barriers) {
  const WgradPlace place(s);
  const WgradShared shared = WgradShared::at(s);
  const unsigned thread = threadIdx.x - kConsumers;
  const bool sums_wanted = db_sums != nullptr && place.first_channel == 0;
  TransposedDy<T> columns(s, place, dy, sums_wanted);
  RingPlace<2> at;
  columns.load(place.begin);
  unsigned left = 0;  // of the slab, in kPixelsAtOnce
  for (unsigned pixel = place.begin; pixel < place.end; pixel += kPixelsAtOnce) {
    if (left == 0) {
      left = s.slab_rows / kPixelsAtOnce;
      const unsigned end = min(pixel + s.slab_rows, place.end);
      const Slab slab(s.slab, pixel, end);
      mbarrier_wait(&barriers.slab_empty[at.slot], at.parity ^ 1);
      for (unsigned i = thread; i < s.slab_rows; i += kProducers) {
        shared.starts[at.slot * s.slab_rows + i] =
            slab.pixel(min(pixel + i, end - 1)) * kPieceBytes<T>;
      }
      Mbarrier* full = &barriers.slab_full[at.slot];
      if (thread == 0) {
        mbarrier_arrive_expect(full, slab.bytes() * place.sixteens);
        for (unsigned i = 0; i < place.sixteens; ++i) {
          slab.fetch(image, place.group * s.group_c + place.first_channel + i * kPieceK,
                     shared.slabs + at.slot * s.slab_bytes + i * s.sixteen_bytes, full);
        }
      } else {
        mbarrier_arrive(full);
      }
      at.advance();
    }
    --left;
    columns.take();
    if (pixel + kPixelsAtOnce < place.end) columns.load(pixel + kPixelsAtOnce);
    columns.store(shared.ring, barriers);
  }
  if (sums_wanted) columns.store_sums(db_sums);
}

// ---- consumers ---------------------------------------------------------------------------------

// Piece i of this warp: the wgmma are dealt out to the warpgroups in turn, their rows to the warps.
__device__ inline unsigned piece_of_warp(int i) {
  return (i * 2 + threadIdx.x / 128) * 4 + threadIdx.x / 32 % 4;
}

// kWgmma: how many of the block's the warpgroup has.
template <class T, int kWgmma>
__device__ inline void consume_pieces(const WgradParameters& s, const WgradPlace& place,
                                      WgradBarriers& barriers, float* dw) {
  const WgradShared shared = WgradShared::at(s);
  const unsigned taps = s.taps_h * s.taps_w, pieces = taps * place.sixteens;
  unsigned shift[kWgmma];  // of a piece in the slabs, in bytes
  float sums[kWgmma][8][4];
#pragma unroll
  for (int i = 0; i < kWgmma; ++i) {
    const unsigned piece = min(piece_of_warp(i), pieces - 1), tap = piece % taps;
    shift[i] = piece / taps * s.sixteen_bytes +
               (tap / s.taps_w * s.slab.pitch + tap % s.taps_w) * kPieceBytes<T>;
#pragma unroll
    for (int j = 0; j < 32; ++j) sums[i][j / 4][j % 4] = 0.0f;
  }

  RingPlace<2> at;
  RingPlace<kWgradStages> stage;
  ChannelRows<T> pixels[2];
  const std::uint64_t ring = wgmma_descriptor<kWgradRowBytes>(shared.ring);
  for (unsigned first = place.begin; first < place.end; first += s.slab_rows) {
    mbarrier_wait(&barriers.slab_full[at.slot], at.parity);
    const unsigned slab = shared_address(shared.slabs) + at.slot * s.slab_bytes;
    const unsigned* starts = shared.starts + at.slot * s.slab_rows;
    const unsigned count = min(s.slab_rows, place.end - first);
    const unsigned all = (count + kPixelsAtOnce - 1) / kPixelsAtOnce * kPixelsAtOnce;
    for (unsigned pixel = 0; pixel < all; pixel += kStagePixels<T>) {
      const PixelPlaces<T> places(slab, starts + pixel);
      mbarrier_wait(&barriers.full[stage.slot], stage.parity);
      const std::uint64_t b = ring + stage.slot * (kWgradStageBytes / 16);
#pragma unroll
      for (int i = 0; i < kWgmma; ++i) {
        const auto read = places.read(shift[i]);
        if (i >= 2) wgmma_wait<1>();  // the one before the last, which has these registers
        pixels[i % 2].keep();
        pixels[i % 2].set(read);
        pixels[i % 2].keep();
        keep_in_place(sums[i]);
        wgmma_fence();
        pixels[i % 2].multiply(sums[i], b);
        wgmma_commit();
      }
      wgmma_wait<0>();
#pragma unroll
      for (int i = 0; i < kWgmma; ++i) keep_in_place(sums[i]);
      pixels[0].keep(), pixels[1].keep();
      release(&barriers.empty[stage.slot]);
      stage.advance();
    }
    release(&barriers.slab_empty[at.slot]);
    at.advance();
  }

  const unsigned length = taps * s.group_c, lane = threadIdx.x % 32;
  float* out = dw + place.split * s.outputs;
#pragma unroll
  for (int i = 0; i < kWgmma; ++i) {
    const unsigned piece = piece_of_warp(i);
    if (piece >= pieces) continue;
    const unsigned channel = place.first_channel + piece / taps * kPieceK;
    const unsigned column = piece % taps * s.group_c + channel;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const unsigned filter = place.first_filter + j / 2 * 8 + lane % 4 * 2 + j % 2;
      if (filter >= s.group_k) continue;
      float* to = out + ((place.group * s.group_k + filter) * length + column);
      ChannelRows<T>::store(to, lane / 4, sums[i][j / 2][j % 2], sums[i][j / 2][2 + j % 2]);
    }
  }
}

// For a warpgroup that has none: only lets go of what it would read.
template <class T>
__device__ inline void skip_pieces(const WgradParameters& s, const WgradPlace& place,
                                   WgradBarriers& barriers) {
  RingPlace<2> at;
  RingPlace<kWgradStages> stage;
  for (unsigned first = place.begin; first < place.end; first += s.slab_rows) {
    mbarrier_wait(&barriers.slab_full[at.slot], at.parity);
    const unsigned count = min(s.slab_rows, place.end - first);
    const unsigned all = (count + kPixelsAtOnce - 1) / kPixelsAtOnce * kPixelsAtOnce;
    for (unsigned pixel = 0; pixel < all; pixel += kStagePixels<T>) {
      mbarrier_wait(&barriers.full[stage.slot], stage.parity);
      release(&barriers.empty[stage.slot]);
      stage.advance();
    }
    release(&barriers.slab_empty[at.slot]);
    at.advance();
  }
}

template <class T>
__device__ inline void consume(const WgradParameters& s, WgradBarriers& barriers, float* dw) {
  const WgradPlace place(s);
  const unsigned all = (s.taps_h * s.taps_w * place.sixteens + 3) / 4;
  const unsigned mine = (all + 1 - threadIdx.x / 128) / 2;
  static_assert(kWgradPieces == 4, "each number of them is written out");
  if (mine == 4) {
    consume_pieces<T, 4>(s, place, barriers, dw);
  } else if (mine == 3) {
    consume_pieces<T, 3>(s, place, barriers, dw);
  } else if (mine == 2) {
    consume_pieces<T, 2>(s, place, barriers, dw);
  } else if (mine == 1) {
    consume_pieces<T, 1>(s, place, barriers, dw);
  } else {
    skip_pieces<T>(s, place, barriers);
  }
}

template <class T>
__global__ void __launch_bounds__(kConsumers + kProducers, 1)
    wgmma_wgrad_kernel(const WgradParameters parameters, const __grid_constant__ TensorMap image,
                       const T* dy, float* dw, float* db_sums) {
  if constexpr (kCompiledForHopper) {
    __shared__ __align__(16) WgradBarriers barriers;
    if (threadIdx.x == 0) {
      barriers.init(kProducers, kProducers);
      mbarrier_init_done();
    }
    __syncthreads();
    if (threadIdx.x >= kConsumers) {
      give_registers_back<72>();
      produce<T>(parameters, image, dy, db_sums, barriers);
    } else {
      take_registers<216>();
      consume<T>(parameters, barriers, dw);
    }
  }
}

}  // namespace

template <class T>
void wgmma_wgrad(OpName op, const GemmPlan& gemm, const T* x, const T* dy, float* dw, float* db,
                 Workspace workspace, Stream stream) {
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
  const TensorMap map = pixel_row_map(
      op, x, s.n, s.h, s.w, s.c, static_cast<int>(plan.slab.slab_pixels), plan.slab.pixel_bytes);
  const dim3 blocks(plan.tiles_c * plan.tiles_k * parameters.groups * plan.splits);
  const std::size_t bytes = 1024 + 2 * std::size_t{parameters.slab_bytes} +
                            kWgradStages * std::size_t{kWgradStageBytes} +
                            2 * 4 * std::size_t{parameters.slab_rows};
  launch(op, wgmma_wgrad_kernel<T>, blocks, dim3(kConsumers + kProducers), bytes, stream,
         parameters, map, dy, out, db_sums);
  const SplitResult<float> weights{
      partials, plan.splits, plan.outputs, parameters.group_c, plan.splits > 1 ? dw : nullptr, {}};
  const SplitResult<float> biases{db_sums, plan.bias_sums, s.k, s.k, db, {}};
  if (db != nullptr) {
    sum_splits(op, weights, biases, stream);
  } else if (plan.splits > 1) {
    sum_splits(op, weights, stream);
  }
}

template void wgmma_wgrad(OpName, const GemmPlan&, const float*, const float*, float*, float*,
                          Workspace, Stream);
template void wgmma_wgrad(OpName, const GemmPlan&, const Bfloat16*, const Bfloat16*, float*, float*,
                          Workspace, Stream);

}  // namespace convnet
