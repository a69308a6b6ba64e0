// The sum over splits of a product:
//
//   out[i] = mask(relu(bias[i mod channels] + sum_split partials[split, i])),   i < count
//
// Tensors: partials [splits, count] read; out [count] written; bias [channels], mask [count] read.
// Mapping: a thread per element, or per four where they lie in a row of channels and are aligned;
// splits in order, so that the bits do not depend on the schedule. dw and db share a launch.
// Cost: 4 (splits + 1) bytes an element, limited by memory; the partials of a plan are at most
// 20 MB, and mostly still in L2.
#include "splits.cuh"

#include "kernels/device/launch.h"
#include "kernels/device/vectors.h"
#include "kernels/dropout.cuh"
#include "kernels/fast_divmod.cuh"
#include "kernels/warp.cuh"

namespace convnet {
namespace {

__device__ inline void add(float& sum, float v) { sum += v; }
__device__ inline void add(float4& sum, float4 v) {
  sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
}

template <class T>
struct SplitSum {
  const float* partials;
  unsigned splits, count;
  FastDivmod by_channels;
  Epilogue<T> epilogue;
  T* out;
};

// V is float or float4; `count` and `by_channels` count those.
template <class V, class T>
__device__ inline void sum_one(const SplitSum<T>& s, unsigned i) {
  const V* from = reinterpret_cast<const V*>(s.partials) + i;
  V sum{};
  for (unsigned split = 0; split < s.splits; ++split) add(sum, from[std::size_t{split} * s.count]);
  constexpr unsigned kWidth = sizeof(V) / 4;
  unsigned rest = i;
  const V bias = bias_of<V>(s.epilogue, s.by_channels.split(&rest) * kWidth);
  store_value(s.out + std::size_t{i} * kWidth,
              finish<EpilogueKind::kAny>(sum, s.epilogue, bias, i * kWidth));
}

template <class V, class T>
__global__ void __launch_bounds__(kBlockThreads)
    split_sum_kernel(const SplitSum<T> first, const SplitSum<T> second) {
  const unsigned i = global_thread();
  if (i < first.count) {
    sum_one<V>(first, i);
  } else if (i - first.count < second.count) {
    sum_one<V>(second, i - first.count);
  }
}

// A thread for each four numbers of the mask that lie in a row, as in dropout.cu.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    split_dropout_kernel(const float* partials, unsigned splits, unsigned rows, unsigned channels,
                         FastDivmod by_fours, unsigned fours, Epilogue<T> epilogue,
                         DropoutDraw draw, T* out) {
  unsigned row = global_thread();
  if (row >= rows * fours) return;
  draw.begin();
  const auto four = static_cast<unsigned>(by_fours.split(&row));
  const std::uint64_t begin = draw.origin + row * draw.global_cols;
  const Philox4 bits = draw.four(begin / 4 + four);
  const unsigned first = 4 * four - static_cast<unsigned>(begin % 4);  // may be negative
  const std::size_t count = std::size_t{rows} * channels;
#pragma unroll
  for (unsigned t = 0; t < 4; ++t) {
    const unsigned channel = first + t, i = row * channels + channel;
    if (channel >= channels) continue;
    float sum = 0.0f;
    for (unsigned split = 0; split < splits; ++split) sum += partials[split * count + i];
    const float bias = bias_of<float>(epilogue, channel);
    // Rounded twice, as where y is stored between the two operations.
    const float y = rounded_to<T>(finish<EpilogueKind::kAny>(sum, epilogue, bias, i));
    store(out + i, draw.masked(bits.v[t], y));
  }
}

template <class T>
bool fours(const SplitResult<T>& r) {
  return r.channels % 4 == 0 && aligned4(r.partials) && aligned4(r.out) && r.epilogue.aligned();
}

template <class T>
SplitSum<T> split_sum(const SplitResult<T>& r, std::int64_t width) {
  return {
      r.partials, r.splits, static_cast<unsigned>(r.count / width), FastDivmod(r.channels / width),
      r.epilogue, r.out};
}

}  // namespace

float* floats_in(OpName op, std::int64_t floats, Workspace workspace) {
  if (floats == 0) return nullptr;
  const auto address = reinterpret_cast<std::uintptr_t>(workspace.data);
  const std::uintptr_t skip = (16 - address % 16) % 16;
  const std::int64_t need = floats * 4 + static_cast<std::int64_t>(skip);
  if (workspace.data == nullptr || workspace.bytes < need) {
    fail(op.name, "workspace", std::to_string(need) + " bytes", std::to_string(workspace.bytes));
  }
  return reinterpret_cast<float*>(address + skip);
}

void sum_splits(OpName op, const SplitResult<float>& first, const SplitResult<float>& second,
                Stream stream) {
  if (first.out == nullptr || fours(first) != fours(second)) {
    if (first.out != nullptr) sum_splits(op, first, stream);
    sum_splits(op, second, stream);
    return;
  }
  const std::int64_t width = fours(first) ? 4 : 1;
  launch(op, width == 4 ? split_sum_kernel<float4, float> : split_sum_kernel<float, float>,
         blocks_for((first.count + second.count) / width), dim3(kBlockThreads), 0, stream,
         split_sum(first, width), split_sum(second, width));
}

template <class T>
void sum_splits(OpName op, const SplitResult<T>& result, Stream stream) {
  const std::int64_t width = fours(result) ? 4 : 1;
  launch(op, width == 4 ? split_sum_kernel<float4, T> : split_sum_kernel<float, T>,
         blocks_for(result.count / width), dim3(kBlockThreads), 0, stream, split_sum(result, width),
         SplitSum<T>{});
}

template <class T>
void sum_splits_and_drop(OpName op, const SplitResult<T>& result, const DropoutDraw& draw,
                         Stream stream) {
  const std::int64_t rows = result.count / result.channels, fours = (result.channels + 6) / 4;
  launch(op, split_dropout_kernel<T>, blocks_for(rows * fours), dim3(kBlockThreads), 0, stream,
         result.partials, result.splits, static_cast<unsigned>(rows),
         static_cast<unsigned>(result.channels), FastDivmod(fours), static_cast<unsigned>(fours),
         result.epilogue, draw, result.out);
}

template void sum_splits(OpName, const SplitResult<float>&, Stream);
template void sum_splits(OpName, const SplitResult<Bfloat16>&, Stream);
template void sum_splits_and_drop(OpName, const SplitResult<float>&, const DropoutDraw&, Stream);
template void sum_splits_and_drop(OpName, const SplitResult<Bfloat16>&, const DropoutDraw&, Stream);

}  // namespace convnet
