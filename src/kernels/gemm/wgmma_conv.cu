// Convolution of stride 1, forward and towards the data, with Hopper's wgmma and TMA.
//
//   fprop   y[n,p,q,k] = relu(b[k] + sum_{r,s,c} w[k,r,s,c] x[n, p-pad_h+r, q-pad_w+s, gC+c])
//   dgrad   dx = the same of dy with padding R - 1 - pad, w transposed and turned around, masked
//   C[m, j] = sum_i A[m, i] B[j, i]:   m = (n,p,q),  j = filter of the group,  i = (c,r,s)
//
// Tensors: x [N,H,W,C], filters, b [K] or null: read. y [N,P,Q,K]: written. In dgrad dy is x
// and dx is y, with the mask in b's place (Epilogue). `filters` are those of filters.cu, in
// the order in which they are read.
//
// Mapping. A block computes tiles of kM pixels x kN filters, one after the other: blocks are as
// many as multiprocessors. For some channels at a time it holds a *slab*: all pixels that the filters
// see from the tile, fetched once by TMA, a picture's row at a time, zeros around the picture
// included. Products of a tap are those of the slab shifted by it. The usual implicit product reads
// each pixel R S times from L2, which tensor cores outrun; this one about once.
//
//   producer      one thread of a warpgroup: slabs, two in turn, and through a ring the filters of
//                 one tap and those channels, which filters.cu has rounded, permuted and laid
//                 side by side, so that each is one copy
//   2 warpgroups  kM / 2 pixels each. A is read from the slab by ldmatrix, at any shift, and where it
//                 is float32 rounded in registers, from where wgmma takes it; B is in shared memory. The A of
//                 the next step is read while the products of this one are under way. The next
//                 ones are started before those are waited for (but in fp32, which adds up each).
//
// A step is 64 bytes of channels, 16 float32 or 32 bfloat16; or 16 bfloat16, where a group has no
// thirty-twos. fp32 is 3xTF32 as in mma.cuh, its tensor-core sums drained after each step. Sums run
// over the channels of a step, in each over taps: the bits depend on precision and shape alone, not
// on the tile. Which shapes it takes: wgmma_plan.cuh. Cost: 2 N P Q K R S C/G flops; for a tile and a
// step's channels a slab is fetched (in AlexNet 1.6 to 2.6 times its pixels) and as many elements of
// kN R S filters.
#include <type_traits>

#include "gemm.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/mma.h"
#include "kernels/device/sm90.h"
#include "kernels/device/vectors.h"
#include "kernels/fast_divmod.cuh"
#include "kernels/warp.cuh"
#include "tiles.cuh"
#include "wgmma.cuh"
#include "wgmma_product.cuh"

namespace convnet {
namespace {

// ---- tiles -------------------------------------------------------------------------------------

template <int kPixels, int kFilters, Precision kPrecision_, int kChannels_>
struct WgmmaTile {
  static constexpr Precision kPrecision = kPrecision_;
  using Element = std::conditional_t<kPrecision == Precision::kBf16, Bfloat16, float>;
  static constexpr int kChannels = kChannels_;  // of a step
  static constexpr int kPixelBytes = kChannels * int(sizeof(Element));
  static constexpr int kProducts = kPixelBytes / 32;  // wgmma of a step
  static constexpr int kM = kPixels, kN = kFilters;
  static constexpr int kThreads = kConsumers + kProducers;
  static constexpr int kFragmentsM = kM / 128, kFragmentsN = kN / 8;     // of a warp: 16 and 8 wide
  static constexpr int kParts = kPrecision == Precision::kFp32 ? 2 : 1;  // high and low
  static constexpr int kPartBytes = kN * kPixelBytes, kStageBytes = kParts * kPartBytes;
  static constexpr int kFit = kFilterRingBytes / kStageBytes;
  static constexpr int kStages = kFit < kMostFilterStages ? kFit : kMostFilterStages;

  // Of the tile, for store_tile(): wgmma i of a warpgroup has 64 rows, 16 of them a warp's.
  __device__ static int warp_row() {
    return static_cast<int>(threadIdx.x / 128 * (kM / 2) + threadIdx.x / 32 % 4 * 16);
  }
  __device__ static int warp_column() { return 0; }
};

struct WgmmaRows {
  __device__ static int row(int eight, int r) { return eight / 2 * 64 + eight % 2 * 8 + r; }
};

struct WgmmaParameters {
  unsigned rows;                     // of C
  unsigned taps_h, taps_w, chunks;   // the last: of the channels of a step
  unsigned group_c, group_k, pitch;  // the last: from pixel to pixel of y
  unsigned tiles_m, tiles_n, tiles;
  SlabShape slab;
  unsigned slab_bytes;  // at most
};

struct TilePlace {
  unsigned first_row, end_row, tile_n, group;

  __device__ TilePlace(const WgmmaParameters& s, unsigned tile, unsigned tile_rows) {
    tile_n = tile % s.tiles_n;
    first_row = tile / s.tiles_n % s.tiles_m * tile_rows;
    end_row = min(first_row + tile_rows, s.rows);
    group = tile / (s.tiles_n * s.tiles_m);
  }
};

// Shared memory, from aligned_shared() on: two slabs, then the ring of filters.

// ---- the producer ------------------------------------------------------------------------------

template <class T>
__device__ inline void produce(const WgmmaParameters& s, const TensorMap& image,
                               const unsigned char* filters, Barriers<T::kStages>& barriers,
                               unsigned char* shared) {
  unsigned char* const ring = shared + 2 * s.slab_bytes;
  const unsigned taps = s.taps_h * s.taps_w;
  RingPlace<2> at;
  RingPlace<T::kStages> stage;
  for (unsigned tile = blockIdx.x; tile < s.tiles; tile += gridDim.x) {
    const TilePlace place(s, tile, T::kM);
    const Slab slab(s.slab, place.first_row, place.end_row);
    const unsigned char* from = filters + std::size_t{place.group * s.tiles_n + place.tile_n} *
                                              s.chunks * taps * T::kStageBytes;
    for (unsigned chunk = 0; chunk < s.chunks; ++chunk) {
      mbarrier_wait(&barriers.slab_empty[at.slot], at.parity ^ 1);
      mbarrier_arrive_expect(&barriers.slab_full[at.slot], slab.bytes());
      slab.fetch(image, place.group * s.group_c + chunk * T::kChannels,
                 shared + at.slot * s.slab_bytes, &barriers.slab_full[at.slot]);
      at.advance();
      for (unsigned tap = 0; tap < taps; ++tap) {
        mbarrier_wait(&barriers.empty[stage.slot], stage.parity ^ 1);
        mbarrier_arrive_expect(&barriers.full[stage.slot], T::kStageBytes);
        bulk_copy(ring + stage.slot * T::kStageBytes, from, T::kStageBytes,
                  &barriers.full[stage.slot]);
        from += T::kStageBytes;
        stage.advance();
      }
    }
  }
}

// ---- consumers ----------------------------------------------------------------------------------

template <class T>
using SlabOperands = PixelOperand<T>[T::kFragmentsM];

template <class T>
__device__ inline void keep_operands(SlabOperands<T>& operands) {
#pragma unroll
  for (int i = 0; i < T::kFragmentsM; ++i) operands[i].keep();
}

// Which pixels of a slab a lane reads for ldmatrix: row `lane mod 16` of each fragment.
template <class T>
class SlabPixels {
 public:
  __device__ SlabPixels(const WgmmaParameters& s, const TilePlace& place) {
    const Slab slab(s.slab, place.first_row, place.end_row);
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) {
      const unsigned row = place.first_row + T::warp_row() + i * 64 + threadIdx.x % 16;
      const unsigned pixel = slab.pixel(min(row, place.end_row - 1));  // past the end: not stored
      byte_[i] = pixel * T::kPixelBytes + threadIdx.x / 16 % 2 * 16;
    }
  }

  // Of a tap, from the address of the slab's pixel that the first row of the tile sees there.
  __device__ void load(unsigned slab, SlabOperands<T>& operands) const {
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) {
      const unsigned row = swizzled<T::kPixelBytes>(slab + byte_[i]);
      unsigned raw[T::kProducts][4];
#pragma unroll
      for (int l = 0; l < T::kProducts; ++l) ldmatrix(raw[l], row ^ (l * 32));
      operands[i].set(raw);
    }
  }

 private:
  unsigned byte_[T::kFragmentsM];
};

// The taps of the slabs of a tile, one after the other: for a step's channels all taps of a slab.
template <class T>
struct TapWalk {
  const WgmmaParameters& s;
  unsigned slabs;  // the address of both
  RingPlace<2> at;
  unsigned t, u, address;  // of the slab's pixel that the tile's first one sees at tap (t, u)

  template <class AllBarriers>
  __device__ void begin(AllBarriers& barriers) {
    mbarrier_wait(&barriers.slab_full[at.slot], at.parity);
    t = u = 0;
    address = slabs + at.slot * s.slab_bytes;
  }
  // To the next tap; after the last one of a slab to the next slab, unless there is none.
  template <class AllBarriers>
  __device__ void advance(AllBarriers& barriers, bool last) {
    if (++u < s.taps_w) {
      address += T::kPixelBytes;
      return;
    }
    u = 0;
    if (++t < s.taps_h) {
      address += (s.slab.pitch - s.taps_w + 1) * T::kPixelBytes;
      return;
    }
    release(&barriers.slab_empty[at.slot]);
    at.advance();
    if (!last) begin(barriers);
  }
};

template <class T>
__device__ inline void consume(const WgmmaParameters& s, Barriers<T::kStages>& barriers,
                               const unsigned char* shared,
                               const Epilogue<typename T::Element>& epilogue,
                               typename T::Element* y) {
  const std::uint64_t ring = wgmma_descriptor<T::kPixelBytes>(shared + 2 * s.slab_bytes);
  const unsigned steps = s.chunks * s.taps_h * s.taps_w;
  TapWalk<T> tap{s, shared_address(shared), {}, 0, 0, 0};
  RingPlace<T::kStages> stage;
  WarpgroupProduct<T> product;
  SlabOperands<T> even, odd;
  for (unsigned tile = blockIdx.x; tile < s.tiles; tile += gridDim.x) {
    const TilePlace place(s, tile, T::kM);
    const SlabPixels<T> pixels(s, place);
    product.begin();
    tap.begin(barriers);
    pixels.load(tap.address, even);
    unsigned before = 0;  // the stage of the step before
    const auto multiply = [&](unsigned step, SlabOperands<T>& now, SlabOperands<T>& next) {
      mbarrier_wait(&barriers.full[stage.slot], stage.parity);
      keep_operands<T>(now);  // made before the fence
      product.start(now, ring + stage.slot * (T::kStageBytes / 16));
      if constexpr (product.kQueues) {
        wgmma_wait<1>();  // the product before has read `next` and its stage
        keep_operands<T>(next);
        if (step != 0) release(&barriers.empty[before]);
      }
      const bool last = step + 1 == steps;
      tap.advance(barriers, last);
      if (!last) pixels.load(tap.address, next);
      if constexpr (!product.kQueues) {
        wgmma_wait<0>();
        product.finish();
        keep_operands<T>(now);
        release(&barriers.empty[stage.slot]);
      }
      before = stage.slot;
      stage.advance();
    };
    for (unsigned step = 0; step < steps; step += 2) {
      multiply(step, even, odd);
      if (step + 1 < steps) multiply(step + 1, odd, even);
    }
    if constexpr (product.kQueues) {
      wgmma_wait<0>();
      product.finish();
      keep_operands<T>(even), keep_operands<T>(odd);
      release(&barriers.empty[before]);
    }

    Output<typename T::Element> output{};
    output.out.out = y;
    output.first_row = place.first_row;
    output.first_column = place.tile_n * T::kN;
    output.rows = s.rows;
    output.columns = s.group_k;
    output.first_channel = place.group * s.group_k;
    output.vector = true;
    output.epilogue = epilogue;
    const unsigned pitch = s.pitch, first_channel = output.first_channel;
    store_tile<MmaSumsMap<T, WgmmaRows, MmaAlongK<T::kN>>>(
        product.sums, output, [=](unsigned row) { return row * pitch + first_channel; },
        SameColumns{output.columns});
  }
}

template <class T>
__global__ void __launch_bounds__(T::kThreads, 1)
    wgmma_conv_kernel(const WgmmaParameters parameters, const __grid_constant__ TensorMap image,
                      const unsigned char* filters, const Epilogue<typename T::Element> epilogue,
                      typename T::Element* y) {
  if constexpr (kCompiledForHopper) {
    __shared__ __align__(16) Barriers<T::kStages> barriers;
    unsigned char* const shared = aligned_shared();
    if (threadIdx.x == 0) {
      barriers.init(1, 1);
      mbarrier_init_done();
    }
    __syncthreads();
    if (threadIdx.x >= kConsumers) {
      give_registers_back<40>();
      if (threadIdx.x == kConsumers) produce<T>(parameters, image, filters, barriers, shared);
    } else {
      take_registers<232>();
      consume<T>(parameters, barriers, shared, epilogue, y);
    }
  }
}

// ---- the launcher ------------------------------------------------------------------------------

template <class E>
struct Call {
  OpName op;
  WgmmaParameters parameters;
  const E* image;
  ConvShape shape;  // as_forward()
  const unsigned char* filters;
  Epilogue<E> epilogue;
  E* y;
  Stream stream;
};

template <class T>
void run(const Call<typename T::Element>& call) {
  const ConvShape& s = call.shape;
  const TensorMap map = pixel_row_map(call.op, call.image, s.n, s.h, s.w, s.c,
                                      static_cast<int>(call.parameters.slab.pitch), T::kPixelBytes);
  int device = 0, multiprocessors = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice", call.op);
  check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device),
             "cudaDeviceGetAttribute", call.op);
  const unsigned blocks = min(call.parameters.tiles, static_cast<unsigned>(multiprocessors));
  const std::size_t shared_bytes =
      1024 + 2 * std::size_t{call.parameters.slab_bytes} + T::kStages * T::kStageBytes;
  launch(call.op, wgmma_conv_kernel<T>, dim3(blocks), dim3(T::kThreads), shared_bytes, call.stream,
         call.parameters, map, call.filters, call.epilogue, call.y);
}

// The ladder.
template <Precision kPrecision, int kChannels, int kPixels, class E>
void run_filters(const Call<E>& call, int filters) {
  if (filters == 48) {
    run<WgmmaTile<kPixels, 48, kPrecision, kChannels>>(call);
  } else if (filters == 64) {
    run<WgmmaTile<kPixels, 64, kPrecision, kChannels>>(call);
  } else if (filters == 96) {
    run<WgmmaTile<kPixels, 96, kPrecision, kChannels>>(call);
  } else {
    run<WgmmaTile<kPixels, 128, kPrecision, kChannels>>(call);
  }
}

template <Precision kPrecision, int kChannels, class E>
void run_pixels(const Call<E>& call, const WgmmaPlan& plan) {
  if constexpr (kPrecision != Precision::kFp32) {
    if (plan.pixels == 256) {
      return run_filters<kPrecision, kChannels, 256>(call, plan.filters);
    }
  }
  run_filters<kPrecision, kChannels, 128>(call, plan.filters);
}

void run_plan(const Call<float>& call, const GemmPlan& plan) {
  if (plan.precision == Precision::kTf32) {
    run_pixels<Precision::kTf32, 16>(call, plan.wgmma);
  } else {
    run_pixels<Precision::kFp32, 16>(call, plan.wgmma);
  }
}
void run_plan(const Call<Bfloat16>& call, const GemmPlan& plan) {
  if (plan.wgmma.channels == 32) {
    run_pixels<Precision::kBf16, 32>(call, plan.wgmma);
  } else {
    run_pixels<Precision::kBf16, 16>(call, plan.wgmma);
  }
}

}  // namespace

template <class T>
void wgmma_conv(OpName op, const GemmPlan& gemm, const T* image, const void* filters,
                const Epilogue<T>& epilogue, T* out, Stream stream) {
  const ConvShape s = as_forward(gemm.shape, gemm.pass);
  const WgmmaPlan& plan = gemm.wgmma;
  WgmmaParameters parameters{};
  parameters.rows = static_cast<unsigned>(s.n * s.p * s.q);
  parameters.taps_h = static_cast<unsigned>(s.r);
  parameters.taps_w = static_cast<unsigned>(s.s);
  parameters.group_c = static_cast<unsigned>(s.c / s.groups);
  parameters.group_k = static_cast<unsigned>(s.k / s.groups);
  parameters.chunks = parameters.group_c / static_cast<unsigned>(plan.channels);
  parameters.pitch = static_cast<unsigned>(s.k);
  parameters.tiles_m = plan.tiles_m;
  parameters.tiles_n = plan.tiles_n;
  parameters.tiles = plan.tiles(s.groups);
  parameters.slab = slab_shape(s, plan);
  parameters.slab_bytes = plan.slab_bytes();
  run_plan(Call<T>{op, parameters, image, s, static_cast<const unsigned char*>(filters), epilogue,
                   out, stream},
           gemm);
}

template void wgmma_conv(OpName, const GemmPlan&, const float*, const void*, const Epilogue<float>&,
                         float*, Stream);
template void wgmma_conv(OpName, const GemmPlan&, const Bfloat16*, const void*,
                         const Epilogue<Bfloat16>&, Bfloat16*, Stream);

}  // namespace convnet
