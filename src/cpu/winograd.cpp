// Convolution by Winograd's minimal filtering; the transforms are in winograd_tiles.h.
//
//   fprop  y  = A^T [ sum_c (G w G^T) . (B^T x B) ] A        tile by tile
//   dgrad  the same on dy, with the filters turned by 180 degrees and C and K exchanged
//   wgrad  dw = G^T [ sum_tiles (A dy A^T) . (B^T x B) ] G
//
// Over channels (or tiles) the elementwise products are a * a matrix products, which oneDNN does.
// 3x3 filters need 25 multiplications for 9 outputs instead of 81 (or 16 for 4 instead of 36), 5x5
// filters 36 for 4 instead of 100. Rounding errors are up to about twice those of direct sums
// (docs/architecture.md). An infinity or NaN spreads over its whole tile.
//
// Work is cut by the shape alone and every sum has one order, so results do not depend on the
// number of threads.
#include "winograd.h"

#include <cstring>
#include <type_traits>

#include "row_sums.h"
#include "winograd_plan.h"
#include "winograd_tiles.h"

namespace convnet {
namespace {

using namespace winograd;
using dnnl::memory;

// ---- transforms, compiled for several instruction sets -----------------------------------------

enum class Role { kData, kFilter, kGradient };

// Filters are always float32.
template <class T>
constexpr bool kMayBeFilter = std::is_same_v<T, float>;

template <class T>
CONVNET_INLINE void scatter(Algorithm algorithm, Role role, const Image<const T>& from,
                            std::int64_t begin, int count, const Matrices<float>& to) {
  const auto as = [&](auto f) CONVNET_LAMBDA_INLINE {
    using F = decltype(f);
    if (role == Role::kData) {
      scatter_tiles<Data<F>>(from, begin, count, to);
    } else if (role == Role::kFilter) {
      if constexpr (kMayBeFilter<T>) scatter_tiles<Filter<F>>(from, begin, count, to);
    } else {
      scatter_tiles<Transposed<Output<F>>>(from, begin, count, to);
    }
  };
  if (algorithm == Algorithm::kF2x3) as(F2x3());
  if (algorithm == Algorithm::kF3x3) as(F3x3());
  if (algorithm == Algorithm::kF2x5) as(F2x5());
}

template <class T>
CONVNET_INLINE void gather(Algorithm algorithm, Role role, const Matrices<const float>& from,
                           std::int64_t begin, int count, const Image<T>& to,
                           const Epilogue<T>& epilogue) {
  const auto as = [&](auto f) CONVNET_LAMBDA_INLINE {
    using F = decltype(f);
    if (role == Role::kData) {
      gather_tiles<Output<F>>(from, begin, count, to, epilogue);
    } else if constexpr (kMayBeFilter<T>) {
      gather_tiles<Transposed<Filter<F>>>(from, begin, count, to, epilogue);
    }
  };
  if (algorithm == Algorithm::kF2x3) as(F2x3());
  if (algorithm == Algorithm::kF3x3) as(F3x3());
  if (algorithm == Algorithm::kF2x5) as(F2x5());
}

std::size_t floats(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); }

// Images of one group. Tiles of inputs overlap; those of outputs do not.
template <class Number>
Image<Number> image(const Plan& plan, Number* data, int h, int w, int channels, int pad_h,
                    int pad_w) {
  const std::int64_t row = std::int64_t{w} * channels;
  return {data,         h * row,        row,   channels, h, w, plan.tiles_h,
          plan.tiles_w, plan.variant.m, pad_h, pad_w};
}

// The filters [K, R, S, C/G] from k = `first` on, one tile each.
template <class Float>
Image<Float> filters(const Plan& plan, Float* w, int first, int channels, bool turned) {
  const int r = plan.variant.r;
  const std::int64_t row = std::int64_t{r} * channels, filter = r * row;
  Float* data = w + first * filter;
  if (turned) return {data + filter - channels, filter, -row, -channels, r, r, 1, 1, r, 0, 0};
  return {data, filter, row, channels, r, r, 1, 1, r, 0, 0};
}

constexpr int kFiltersAtOnce = 8;

// ---- fprop and dgrad ----------------------------------------------------------------------------

// Of the transformed filters of all groups, and of the workspace to make them.
std::int64_t filter_bytes(const Plan& plan) {
  return plan.groups * static_cast<std::int64_t>(plan.right.get_size());
}
std::int64_t filter_workspace(const Plan& plan) {
  return plan.reordered ? Scratch::padded(plan.right_as_made.get_size()) : 0;
}

// Where the transformed filters of each group lie, as the matrix product wants them.
std::vector<memory> filters_in(const Plan& plan, void* filters) {
  std::vector<memory> results;
  for (int g = 0; g < plan.groups; ++g) {
    const std::size_t skip = g * plan.right.get_size();
    results.push_back(memory_at(plan.right, static_cast<char*>(filters) + skip));
  }
  return results;
}

void transform_filters(const Plan& plan, const float* w, bool turned,
                       const std::vector<memory>& results, Scratch scratch) {
  const int c = turned ? plan.out : plan.in, k = turned ? plan.in : plan.out;
  void* const own = plan.reordered ? scratch.take(plan.right_as_made.get_size()) : nullptr;
  for (int g = 0; g < plan.groups; ++g) {
    const Image<const float> from = filters(plan, w, g * k, c, turned);
    float* made = static_cast<float*>(plan.reordered ? own : results[g].get_data_handle());
    parallel_chunks(k, kFiltersAtOnce, [&](std::int64_t begin, std::int64_t count) {
      vectorized<scatter<float>>(plan.variant.algorithm, Role::kFilter, from, begin,
                                 static_cast<int>(count),
                                 {made + begin * c, std::int64_t{c} * k, c});
    });
    if (!plan.reordered) continue;
    memory source = memory_at(plan.right_as_made, made), result = results[g];
    plan.reorder.execute(cpu_stream(), source, result);
    cpu_stream().wait();
  }
}

std::int64_t correlate_workspace(const Plan& plan) {
  return thread_count() *
         (Scratch::padded(plan.left.get_size()) + Scratch::padded(plan.result.get_size()) +
          Scratch::padded(plan.scratchpad.get_size()));
}

template <class T>
void correlate(const Plan& plan, const std::vector<memory>& right, const Image<const T>& from,
               const Image<T>& to, const Epilogue<T>& epilogue, Scratch scratch) {
  const std::int64_t blocks = ceil_div(plan.tiles, plan.block);
  struct Buffers {
    float *left, *result;
    void* scratchpad;
  };
  std::vector<Buffers> buffers;
  for (int i = 0; i < thread_count(); ++i) {
    buffers.push_back({static_cast<float*>(scratch.take(plan.left.get_size())),
                       static_cast<float*>(scratch.take(plan.result.get_size())),
                       scratch.take(plan.scratchpad.get_size())});
  }
  parallel_single_threaded(blocks * plan.groups, [&](std::int64_t task) {
    const Buffers& mine = buffers[omp_get_thread_num()];
    const int g = static_cast<int>(task % plan.groups);
    const std::int64_t begin = task / plan.groups * plan.block;
    const int count = static_cast<int>(std::min<std::int64_t>(plan.block, plan.tiles - begin));
    Image<const T> source = from;
    source.data += static_cast<std::int64_t>(g) * plan.in;
    vectorized<scatter<T>>(plan.variant.algorithm, Role::kData, source, begin, count,
                           {mine.left, std::int64_t{plan.block} * plan.in, plan.in});
    // Rows past `count` hold what they held; nobody reads their products.
    plan.product.execute(cpu_stream(),
                         {{DNNL_ARG_SRC, memory_at(plan.left, mine.left)},
                          {DNNL_ARG_WEIGHTS, right[g]},
                          {DNNL_ARG_DST, memory_at(plan.result, mine.result)},
                          {DNNL_ARG_SCRATCHPAD, memory_at(plan.scratchpad, mine.scratchpad)}});
    cpu_stream().wait();
    Image<T> target = to;
    const std::int64_t channel = static_cast<std::int64_t>(g) * plan.out;
    target.data += channel;
    Epilogue<T> part = epilogue;
    if (part.bias != nullptr) part.bias += channel;
    if (part.mask != nullptr) part.mask += channel;
    vectorized<gather<T>>(plan.variant.algorithm, Role::kData,
                          {mine.result, std::int64_t{plan.block} * plan.out, plan.out}, begin,
                          count, target, part);
  });
}

// ---- wgrad --------------------------------------------------------------------------------------

constexpr int kTilesAtOnce = 8;

// Rows [count, block) of the matrices, so that the last, shorter block adds nothing for them.
void clear_rest(const Matrices<float>& matrices, int number, int count, int block) {
  std::memset(matrices.data + number * matrices.stride +
                  static_cast<std::int64_t>(count) * matrices.channels,
              0, floats(static_cast<std::int64_t>(block - count) * matrices.channels));
}

// Tiles [begin, begin + count) of every group into `to`, the groups' matrices one after the other.
template <class T>
void scatter_block(const Plan& plan, Role role, const Image<const T>& from, std::int64_t begin,
                   int count, int channels, float* to) {
  const std::int64_t stride = std::int64_t{plan.block} * channels;
  for (int g = 0; g < plan.groups; ++g) {
    Image<const T> source = from;
    source.data += static_cast<std::int64_t>(g) * channels;
    float* matrices = to + g * plan.numbers * stride;
    parallel_chunks(count, kTilesAtOnce, [&](std::int64_t first, std::int64_t some) {
      vectorized<scatter<T>>(plan.variant.algorithm, role, source, begin + first,
                             static_cast<int>(some),
                             {matrices + first * channels, stride, channels});
    });
    if (count == plan.block) continue;
    for (int i = 0; i < plan.numbers; ++i) {
      clear_rest({matrices, stride, channels}, i, count, plan.block);
    }
  }
}

}  // namespace

std::int64_t winograd_workspace(const ConvShape& s, Pass pass) {
  const auto plan = plan_of(s, pass);
  const auto size = [](std::size_t bytes) { return Scratch::padded(bytes); };
  if (pass == Pass::kDgrad) {
    return size(filter_bytes(*plan)) +
           std::max(filter_workspace(*plan), correlate_workspace(*plan));
  }
  const std::size_t partial = row_sums_bytes(std::int64_t{s.n} * s.p * s.q, s.k);
  return size(plan->left.get_size()) + size(plan->right.get_size()) +
         size(plan->result.get_size()) + size(partial) + plan->wgrad->workspace();
}

FpropBytes winograd_fprop_bytes(const ConvShape& s) {
  const auto plan = plan_of(s, Pass::kFprop);
  return {filter_bytes(*plan), filter_workspace(*plan), correlate_workspace(*plan)};
}

void winograd_prepare(const ConvShape& s, const float* w, Workspace prepared, Workspace workspace) {
  const auto plan = plan_of(s, Pass::kFprop);
  const auto right = filters_in(*plan, prepared.data);
  transform_filters(*plan, w, false, right, Scratch("conv_prepare", workspace));
}

template <class T>
void winograd_fprop(const ConvShape& s, const T* x, Workspace prepared, const float* b, bool relu,
                    T* y, Workspace workspace) {
  const auto plan = plan_of(s, Pass::kFprop);
  const auto right = filters_in(*plan, prepared.data);
  correlate<T>(*plan, right, image(*plan, x, s.h, s.w, s.c, s.pad_h, s.pad_w),
               image(*plan, y, s.p, s.q, s.k, 0, 0), {b, relu, nullptr},
               Scratch("conv_fprop", workspace));
}

template <class T>
void winograd_dgrad(const ConvShape& s, const T* dy, const float* w, const T* relu_mask, T* dx,
                    Workspace workspace) {
  const auto plan = plan_of(s, Pass::kDgrad);
  Scratch scratch("conv_dgrad", workspace);
  const auto right = filters_in(*plan, scratch.take(filter_bytes(*plan)));
  transform_filters(*plan, w, true, right, scratch);
  const int pad_h = s.r - 1 - s.pad_h, pad_w = s.s - 1 - s.pad_w;
  correlate<T>(*plan, right, image(*plan, dy, s.p, s.q, s.k, pad_h, pad_w),
               image(*plan, dx, s.h, s.w, s.c, 0, 0), {nullptr, false, relu_mask}, scratch);
}

template <class T>
void winograd_wgrad(const ConvShape& s, const T* x, const T* dy, float* dw, float* db,
                    Workspace workspace) {
  const auto plan = plan_of(s, Pass::kWgrad);
  Scratch scratch("conv_wgrad", workspace);
  float* left = static_cast<float*>(scratch.take(plan->left.get_size()));
  float* right = static_cast<float*>(scratch.take(plan->right.get_size()));
  float* sums = static_cast<float*>(scratch.take(plan->result.get_size()));
  const int in = plan->in, out = plan->out;
  const std::int64_t matrix = std::int64_t{in} * out;
  parallel_chunks(
      matrix * plan->numbers * plan->groups, kChunk,
      [&](std::int64_t begin, std::int64_t count) { std::memset(sums + begin, 0, floats(count)); });
  const Image<const T> inputs = image(*plan, x, s.h, s.w, s.c, s.pad_h, s.pad_w);
  const Image<const T> gradients = image(*plan, dy, s.p, s.q, s.k, 0, 0);
  for (std::int64_t begin = 0; begin < plan->tiles; begin += plan->block) {
    const int count = static_cast<int>(std::min<std::int64_t>(plan->block, plan->tiles - begin));
    scatter_block(*plan, Role::kGradient, gradients, begin, count, out, left);
    scatter_block(*plan, Role::kData, inputs, begin, count, in, right);
    Scratch rest("conv_wgrad", scratch.rest());
    plan->wgrad->run(left, right, nullptr, sums, rest);
  }
  for (int g = 0; g < plan->groups; ++g) {
    const Image<float> target = filters(*plan, dw, g * out, in, false);
    const float* group = sums + g * plan->numbers * matrix;
    parallel_chunks(out, kFiltersAtOnce, [&](std::int64_t begin, std::int64_t count) {
      vectorized<gather<float>>(plan->variant.algorithm, Role::kFilter,
                                {group + begin * in, matrix, in}, begin, static_cast<int>(count),
                                target, {nullptr, false, nullptr});
    });
  }
  if (db == nullptr) return;
  const std::int64_t rows = std::int64_t{s.n} * s.p * s.q;
  float* partial = static_cast<float*>(scratch.take(row_sums_bytes(rows, s.k)));
  sum_rows(dy, rows, s.k, partial, db);
}

CONVNET_FOR_BOTH_TYPES(winograd_fprop);
CONVNET_FOR_BOTH_TYPES(winograd_dgrad);
CONVNET_FOR_BOTH_TYPES(winograd_wgrad);

}  // namespace convnet
