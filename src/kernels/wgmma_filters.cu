// Filters as wgmma_conv.cu wants them.
//
//   filled[group, tile, chunk, tap] = a stage of its ring: [part][j][16 k]
//
// Tensors: w [K,R,S,C/G] read, of the convolution or, in dgrad, of the one whose gradient this is;
// `filled`, in the workspace or prepared, written. The parts of fp32 are high and low, else there
// is one. Row j of a stage is column MmaAlongK::row(j) of the tile, such that a lane's sums lie in
// fours; of bfloat16, k is permuted as in WarpProduct<Math::kBf16>; and rows are swizzled. Mapping:
// a thread makes an element. Cost: memory, 8 to 12 bytes an element: 2 to 3 us for the largest of
// AlexNet's (computed).
#include "device/launch.h"
#include "device/mma.h"
#include "fast_divmod.cuh"
#include "mma_plan.cuh"
#include "warp.cuh"
#include "wgmma_plan.cuh"

namespace convnet {
namespace {

struct FilterParameters {
  FastDivmod by_columns, by_taps, by_chunks, by_tiles;
  unsigned columns, taps, group_c, group_k, count;
  bool turned;  // dgrad
};

template <Math kMath>
__global__ void __launch_bounds__(kBlockThreads)
    fill_filters_kernel(const FilterParameters parameters, const float* w, unsigned char* filled) {
  const FilterParameters& s = parameters;
  const unsigned i = global_thread();
  if (i >= s.count) return;
  constexpr unsigned kBytes = kMath == Math::kBf16 ? 2 : 4;
  constexpr unsigned kRowBytes = kSlabK * kBytes;
  const unsigned element = i % kSlabK;
  unsigned rest = i / kSlabK;
  const unsigned j = s.by_columns.split(&rest);
  const unsigned stage = rest;
  const unsigned tap = s.by_taps.split(&rest), chunk = s.by_chunks.split(&rest);
  const unsigned tile = s.by_tiles.split(&rest), group = rest;

  const unsigned k =
      kMath == Math::kBf16 ? element / 8 * 8 + element % 8 / 2 + element % 2 * 4 : element;
  const unsigned c = chunk * kSlabK + k;
  const unsigned filter = tile * s.columns + static_cast<unsigned>(MmaAlongK<8>::row(
                                                 static_cast<int>(j / 8), static_cast<int>(j % 8)));
  float value = 0.0f;
  if (filter < s.group_k) {
    value = s.turned
                ? w[((group * s.group_c + c) * s.taps + (s.taps - 1 - tap)) * s.group_k + filter]
                : w[((group * s.group_k + filter) * s.taps + tap) * s.group_c + c];
  }
  const unsigned place = j * kRowBytes + element * kBytes;
  const unsigned swizzled = place ^ (place >> 7 & (kRowBytes / 16 - 1)) << 4;
  const unsigned part = s.columns * kRowBytes;
  unsigned char* to =
      filled + std::size_t{stage} * part * (kMath == Math::kFp32 ? 2 : 1) + swizzled;
  if constexpr (kMath == Math::kBf16) {
    *reinterpret_cast<unsigned short*>(to) =
        static_cast<unsigned short>(pack_bf16(value, 0.0f) & 0xffffu);
  } else if constexpr (kMath == Math::kTf32) {
    *reinterpret_cast<unsigned*>(to) = rounded_to_tf32(__float_as_uint(value));
  } else {
    *reinterpret_cast<unsigned*>(to) = high_part(__float_as_uint(value));
    *reinterpret_cast<unsigned*>(to + part) = low_part(__float_as_uint(value));
  }
}

}  // namespace

const unsigned char* wgmma_filters(OpName op, const ConvShape& shape, Pass pass, Math math,
                                   const float* w, Workspace workspace, Stream stream) {
  const ConvShape s = as_forward(shape, pass);
  const WgmmaPlan plan = wgmma_plan(shape, pass, math);
  FilterParameters parameters{};
  parameters.columns = static_cast<unsigned>(plan.filters);
  parameters.taps = static_cast<unsigned>(s.r * s.s);
  parameters.group_c = static_cast<unsigned>(s.c / s.groups);
  parameters.group_k = static_cast<unsigned>(s.k / s.groups);
  parameters.count = plan.tiles_n * static_cast<unsigned>(plan.filters) * parameters.taps *
                     static_cast<unsigned>(s.c);
  parameters.turned = pass == Pass::kDgrad;
  parameters.by_columns = FastDivmod(plan.filters);
  parameters.by_taps = FastDivmod(parameters.taps);
  parameters.by_chunks = FastDivmod(parameters.group_c / kSlabK);
  parameters.by_tiles = FastDivmod(plan.tiles_n);
  auto* filled =
      reinterpret_cast<unsigned char*>(partials_in(op, plan.filter_bytes / 4, workspace));
  with_math(math, [&](auto mode) {
    launch(op, fill_filters_kernel<decltype(mode)::value>, blocks_for(parameters.count),
           dim3(kBlockThreads), 0, stream, parameters, w, filled);
  });
  return filled;
}

}  // namespace convnet
