// Filters as a main loop reads them, where that is not as they lie.
//
// wgmma (wgmma_conv.cu): filled[group, tile, chunk, tap] = a stage of its ring, [part][j][k of a step]
//   w [K,R,S,C/G], of the convolution or, in dgrad, of the one whose gradient this is. The parts of
//   fp32 are high and low, else there is one. Row j of a stage is column MmaAlongK::row(j) of the
//   tile, such that a lane's sums lie in fours; and rows are swizzled.
//   Mapping: a thread makes 16 bytes of a row. Those that make a row, of 2 or 4, are neighbours,
//   and so are the filters, along which dgrad's w is contiguous: each sector is read and written
//   whole.
// mma, by columns (plan.cuh): filled[row, i] = w[row, i], or 0 for i >= width. A thread an element.
//
// Tensors: w read; `filled`, in the workspace or prepared, written.
// Cost: memory, 8 to 12 bytes an element: 2 to 3 us for the largest of AlexNet's (computed).
#include "gemm.cuh"
#include "kernels/device/launch.h"
#include "kernels/device/mma.h"
#include "kernels/device/vectors.h"
#include "kernels/fast_divmod.cuh"
#include "kernels/warp.cuh"
#include "splits.cuh"
#include "tiles.cuh"

namespace convnet {
namespace {

struct FilterParameters {
  FastDivmod by_columns, by_taps, by_chunks, by_tiles;
  unsigned columns, taps, group_c, group_k, count;
  bool turned;  // dgrad
  bool vector;  // w is aligned to 16 bytes
};

// The row of a stage that column `column` of the tile is: the inverse of MmaAlongK::row.
__device__ inline unsigned stage_row(unsigned column) {
  return column / 16 * 16 + column / 2 % 2 * 8 + column % 16 / 4 * 2 + column % 2;
}

// `kCount` successive k of a filter and tap, k from `k` on.
template <int kCount>
__device__ inline void read_filter(const FilterParameters& s, const float* w, unsigned group,
                                   unsigned filter, unsigned tap, unsigned k,
                                   float (&values)[kCount]) {
  if (filter >= s.group_k) {
#pragma unroll
    for (float& value : values) value = 0.0f;
  } else if (s.turned) {
    const unsigned step = s.taps * s.group_k;
    const float* from = w + ((group * s.group_c + k) * step + (s.taps - 1 - tap) * s.group_k);
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = __ldg(from + (i * step + filter));
  } else {
    const float* from = w + (((group * s.group_k + filter) * s.taps + tap) * s.group_c + k);
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 four = s.vector ? load4(from + i)
                                   : make_float4(__ldg(from + i), __ldg(from + i + 1),
                                                 __ldg(from + i + 2), __ldg(from + i + 3));
      values[i] = four.x, values[i + 1] = four.y, values[i + 2] = four.z, values[i + 3] = four.w;
    }
  }
}

template <Precision kPrecision, unsigned kRowBytes>
__global__ void __launch_bounds__(kBlockThreads)
    fill_filters_kernel(const FilterParameters parameters, const float* w, unsigned char* filled) {
  const FilterParameters& s = parameters;
  const unsigned i = global_thread();
  if (i >= s.count) return;
  constexpr unsigned kBytes = kPrecision == Precision::kBf16 ? 2 : 4, kCount = 16 / kBytes;
  constexpr unsigned kPieces = kRowBytes / 16;
  const unsigned piece = i % kPieces;
  unsigned rest = i / kPieces;
  const unsigned column = s.by_columns.split(&rest), stage = rest;
  const unsigned tap = s.by_taps.split(&rest), chunk = s.by_chunks.split(&rest);
  const unsigned tile = s.by_tiles.split(&rest), group = rest;

  float v[kCount];
  read_filter(s, w, group, tile * s.columns + column, tap, (chunk * kPieces + piece) * kCount, v);

  const unsigned row = stage_row(column) * kRowBytes;
  const unsigned place = row + ((piece ^ (row >> 7 & (kPieces - 1))) << 4);
  const unsigned part = s.columns * kRowBytes;
  unsigned char* to =
      filled + std::size_t{stage} * part * (kPrecision == Precision::kFp32 ? 2 : 1) + place;
  const auto store = [](unsigned char* at, unsigned x, unsigned y, unsigned z, unsigned w) {
    *reinterpret_cast<uint4*>(at) = make_uint4(x, y, z, w);
  };
  if constexpr (kPrecision == Precision::kBf16) {
    store(to, pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
          pack_bf16(v[6], v[7]));
  } else {
    unsigned bits[4];
#pragma unroll
    for (int l = 0; l < 4; ++l) bits[l] = __float_as_uint(v[l]);
    if constexpr (kPrecision == Precision::kTf32) {
      store(to, rounded_to_tf32(bits[0]), rounded_to_tf32(bits[1]), rounded_to_tf32(bits[2]),
            rounded_to_tf32(bits[3]));
    } else {
      store(to, high_part(bits[0]), high_part(bits[1]), high_part(bits[2]), high_part(bits[3]));
      store(to + part, low_part(bits[0]), low_part(bits[1]), low_part(bits[2]), low_part(bits[3]));
    }
  }
}

__global__ void __launch_bounds__(kBlockThreads)
    fill_rows_kernel(const float* w, unsigned count, unsigned width, FastDivmod by_filled,
                     float* filled) {
  const unsigned i = global_thread();
  if (i >= count) return;
  unsigned row = i;
  const unsigned column = by_filled.split(&row);
  filled[i] = column < width ? w[row * width + column] : 0.0f;
}

// ---- launchers ---------------------------------------------------------------------------------

void fill_filters(OpName op, const GemmPlan& plan, const float* w, float* filled, Stream stream) {
  const ConvShape s = as_forward(plan.shape, plan.pass);
  FilterParameters parameters{};
  parameters.columns = static_cast<unsigned>(plan.wgmma.filters);
  parameters.taps = static_cast<unsigned>(s.r * s.s);
  parameters.group_c = static_cast<unsigned>(s.c / s.groups);
  parameters.group_k = static_cast<unsigned>(s.k / s.groups);
  const int parts = plan.precision == Precision::kFp32 ? 2 : 1;
  parameters.count = static_cast<unsigned>(plan.wgmma.filter_bytes / 16) / parts;
  parameters.turned = plan.pass == Pass::kDgrad;
  parameters.vector = aligned16(w);
  parameters.by_columns = FastDivmod(plan.wgmma.filters);
  parameters.by_taps = FastDivmod(parameters.taps);
  parameters.by_chunks =
      FastDivmod(parameters.group_c / static_cast<unsigned>(plan.wgmma.channels));
  parameters.by_tiles = FastDivmod(plan.wgmma.tiles_n);
  const auto fill = [&](auto kernel) {
    launch(op, kernel, blocks_for(parameters.count), dim3(kBlockThreads), 0, stream, parameters, w,
           reinterpret_cast<unsigned char*>(filled));
  };
  if (plan.precision == Precision::kFp32) {
    fill(fill_filters_kernel<Precision::kFp32, 64>);
  } else if (plan.precision == Precision::kTf32) {
    fill(fill_filters_kernel<Precision::kTf32, 64>);
  } else if (plan.wgmma.pixel_bytes == 64) {
    fill(fill_filters_kernel<Precision::kBf16, 64>);
  } else {
    fill(fill_filters_kernel<Precision::kBf16, 32>);
  }
}

void fill_rows(OpName op, const GemmPlan& plan, const float* w, float* filled, Stream stream) {
  const std::int64_t count = plan.filled_filters();
  launch(op, fill_rows_kernel, blocks_for(count), dim3(kBlockThreads), 0, stream, w,
         static_cast<unsigned>(count), plan.row_floats, FastDivmod(plan.shape.s), filled);
}

}  // namespace

const void* prepare_filters(OpName op, const GemmPlan& plan, const float* w, Workspace* workspace,
                            Stream stream) {
  const std::int64_t floats = plan.prepared_bytes() / 4;
  if (floats == 0) return w;
  float* const filled = floats_in(op, floats, *workspace);
  if (plan.loop == MainLoop::kWgmma) {
    fill_filters(op, plan, w, filled, stream);
  } else {
    fill_rows(op, plan, w, filled, stream);
  }
  auto* const end = static_cast<char*>(workspace->data) + workspace->bytes;
  *workspace = {filled + floats, end - reinterpret_cast<char*>(filled + floats)};
  return filled;
}

}  // namespace convnet
