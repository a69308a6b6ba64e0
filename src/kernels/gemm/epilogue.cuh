// What happens to the sums of a product on their way to memory: bias, ReLU or its mask, and which
// of them a thread stores where.
#pragma once

#include <type_traits>

#include "kernels/device/launch.h"
#include "kernels/device/vectors.h"

namespace convnet {

// result = relu(sum + bias), or mask(sum): each may be absent, and one of bias and mask is.
template <class T>
struct Epilogue {
  const float* bias;  // [channels], or null
  const T* mask;      // of the result's shape, or null: zero where mask <= 0
  bool relu;

  // Whether it may be read by fours.
  bool aligned() const { return aligned4(mask); }
};

enum class EpilogueKind { kPlain, kBias, kMask, kAny };  // the last: what there is, is asked

template <EpilogueKind kind>
using KindConstant = std::integral_constant<EpilogueKind, kind>;

// Calls store(kind) with the epilogue's kind as a KindConstant, so that code is made for each.
template <class T, class Store>
__device__ inline void with_kind(const Epilogue<T>& epilogue, Store store) {
  if (epilogue.mask != nullptr) {
    store(KindConstant<EpilogueKind::kMask>{});
  } else if (epilogue.bias != nullptr) {
    store(KindConstant<EpilogueKind::kBias>{});
  } else {
    store(KindConstant<EpilogueKind::kPlain>{});
  }
}

// What follows is for one element of the result, V = float, or for four neighbours, V = float4.
// The result, and the mask, are of T.

template <class T>
__device__ inline void store_value(T* to, float4 four) {
  store4(to, four);
}
template <class T>
__device__ inline void store_value(T* to, float value) {
  store(to, value);
}

// For all elements of a column, or of four: `channel` is the first one's last index in the result.
template <class V, class T>
__device__ inline V bias_of(const Epilogue<T>& epilogue, unsigned channel) {
  if (epilogue.bias == nullptr) return V{};
  const float* bias = epilogue.bias + channel;
  if constexpr (sizeof(V) == sizeof(float4)) {
    return make_float4(__ldg(bias), __ldg(bias + 1), __ldg(bias + 2), __ldg(bias + 3));
  } else {
    return __ldg(bias);
  }
}

template <EpilogueKind kind, class T>
__device__ inline float finish_one(float sum, const Epilogue<T>& epilogue, float bias, float mask) {
  constexpr bool kAny = kind == EpilogueKind::kAny;
  if (kind == EpilogueKind::kBias || (kAny && epilogue.bias != nullptr)) sum += bias;
  if (kind != EpilogueKind::kMask) {
    const float least = epilogue.relu ? 0.0f : -INFINITY;  // a value, so that no code is made twice
    sum = least > sum ? least : sum;                       // NaN passes
  }
  if (kind == EpilogueKind::kMask || (kAny && epilogue.mask != nullptr)) {
    sum = mask <= 0.0f ? 0.0f : sum;
  }
  return sum;
}

// `index` is the place in the result.
template <EpilogueKind kind, class T>
__device__ inline float finish(float sum, const Epilogue<T>& epilogue, float bias, unsigned index) {
  float mask = 1.0f;
  if (kind == EpilogueKind::kMask || (kind == EpilogueKind::kAny && epilogue.mask != nullptr)) {
    mask = load_readonly(epilogue.mask + index);
  }
  return finish_one<kind>(sum, epilogue, bias, mask);
}
template <EpilogueKind kind, class T>
__device__ inline float4 finish(float4 sum, const Epilogue<T>& epilogue, float4 bias,
                                unsigned index) {
  float4 mask = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
  if (kind == EpilogueKind::kMask || (kind == EpilogueKind::kAny && epilogue.mask != nullptr)) {
    mask = load4_readonly(epilogue.mask + index);
  }
  return make_float4(finish_one<kind>(sum.x, epilogue, bias.x, mask.x),
                     finish_one<kind>(sum.y, epilogue, bias.y, mask.y),
                     finish_one<kind>(sum.z, epilogue, bias.z, mask.z),
                     finish_one<kind>(sum.w, epilogue, bias.w, mask.w));
}

// An array that is written: the result, of T; or in place of it, where a product has splits, the
// float32 sums of them (splits.cuh).
template <class T>
struct Destination {
  T* out;
  float* sums;  // null: there are no splits

  __host__ __device__ Destination from(std::size_t element) const {
    return {out, sums == nullptr ? nullptr : sums + element};
  }
  bool aligned() const { return sums == nullptr ? aligned4(out) : aligned4(sums); }
  template <class V>
  __device__ void store(unsigned at, V value) const {
    if (sums == nullptr) {
      store_value(out + at, value);
    } else {
      store_value(sums + at, value);
    }
  }
};
// Where both are float32, it is one pointer.
template <>
struct Destination<float> {
  float* out;

  __host__ __device__ Destination from(std::size_t element) const { return {out + element}; }
  bool aligned() const { return aligned4(out); }
  template <class V>
  __device__ void store(unsigned at, V value) const {
    store_value(out + at, value);
  }
};

// Where a tile's sums go: element (row, column) of the product to out[start(row) + column], as far
// as row < rows and column < columns.
template <class T>
struct Output {
  Destination<T> out;
  unsigned first_row, first_column;  // of the tile
  unsigned rows, columns;            // of the product
  unsigned first_channel;            // of column 0, for the bias
  bool vector;  // columns and start(row) are multiples of 4, out and the epilogue are aligned
  Epilogue<T> epilogue;
};

// What becomes of finished values: they are the result, from out[at] on.
struct StoreResult {
  template <class T, class V>
  __device__ void operator()(const Destination<T>& out, unsigned at, V value) const {
    out.store(at, value);
  }
};

// The place of a row that is not the result's.
constexpr unsigned kNoRow = ~0u;

// Calls store(kind, V{}) for the widest V that the output takes.
template <class T, class Store>
__device__ inline void with_width(const Output<T>& output, Store store) {
  if (output.vector) {
    with_kind(output.epilogue, [&](auto kind) { store(kind, float4{}); });
  } else {
    store(KindConstant<EpilogueKind::kAny>{}, float{});
  }
}

// The V that begins at sums(c): c and the three that follow, or c alone.
template <class V, class Sums>
__device__ inline V gather_sums(const Sums& sums, int c) {
  if constexpr (sizeof(V) == sizeof(float4)) {
    return make_float4(sums(c), sums(c + 1), sums(c + 2), sums(c + 3));
  } else {
    return sums(c);
  }
}

// The columns of C are those of the result.
struct SameColumns {
  unsigned columns;
  __device__ bool valid(unsigned column) const { return column < columns; }
  __device__ unsigned offset(unsigned column) const { return column; }
};

// Stores a thread's sums: element (row, column) goes to out[start(row) + columns.offset(column)],
// where row < rows and columns.valid(column). `Map` says which they are: in kRows rows, and along a
// row in kFours pieces of four.
template <class Map, class T, class Sums, class RowStart, class Columns,
          class StoreOp = StoreResult>
__device__ inline void store_tile(const Sums& sums, const Output<T>& output, RowStart start,
                                  Columns columns, StoreOp store_op = {}) {
  unsigned starts[Map::kRows];
#pragma unroll
  for (int i = 0; i < Map::kRows; ++i) {
    const unsigned row = output.first_row + Map::row(i);
    starts[i] = row < output.rows ? start(row) : kNoRow;
  }
  with_width(output, [&](auto kind, auto zero) {
    using V = decltype(zero);
#pragma unroll
    for (int four = 0; four < Map::kFours; ++four) {
#pragma unroll
      for (int c = 0; c < 4; c += sizeof(V) / 4) {
        const unsigned column = output.first_column + Map::column(four) + c;
        if (!columns.valid(column)) continue;
        const unsigned offset = columns.offset(column);
        const V bias = bias_of<V>(output.epilogue, output.first_channel + offset);
#pragma unroll
        for (int i = 0; i < Map::kRows; ++i) {
          if (starts[i] == kNoRow) continue;
          const V v = gather_sums<V>([&](int e) { return Map::get(sums, i, four, e); }, c);
          const unsigned at = starts[i] + offset;
          store_op(output.out, at, finish<decltype(kind)::value>(v, output.epilogue, bias, at));
        }
      }
    }
  });
}

}  // namespace convnet
