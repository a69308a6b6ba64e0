// Arguments of operations that go together, and the macros that name them in the schema; and what
// is asked of arguments in several families of operations.
#pragma once

#include <algorithm>

#include "schema.h"

namespace convnet {

#define WINDOW "stride pad rounding "
struct WindowArguments {
  using Parts = std::tuple<Pair, Pair, Rounding>;
  Pair stride, pad;
  Rounding rounding;
  operator Window() const { return {stride.h, stride.w, pad.h, pad.w, rounding}; }
};

#define POOL "size " WINDOW
struct PoolArguments {
  using Parts = std::tuple<Pair, WindowArguments>;
  Pair size;
  WindowArguments window;
  PoolShape shape(const char* op, const Dims& x) const {
    return pool_shape(op, x, size.h, size.w, window);
  }
  PoolShape max_shape(const char* op, const Dims& x) const {
    const PoolShape found = shape(op, x);
    if (size.h * size.w > 256) {
      fail(op, "size", "at most 256 elements in a window (argmax is a uint8)",
           to_string({size.h, size.w}));
    }
    return found;
  }
};

#define LRN "n k alpha beta groups alpha_mode "
struct LrnArguments {
  using Parts = std::tuple<Int, double, double, double, Int, AlphaMode>;
  Int n;
  double k, alpha, beta;
  Int groups;
  AlphaMode alpha_mode;
  LrnShape shape(const char* op, const Dims& x) const {
    return lrn_shape(op, x, n, k, alpha, beta, groups, alpha_mode == AlphaMode::kMean);
  }
};

#define MASK "drop seed layer step mode row_offset col_offset global_cols state "
struct MaskArguments {
  using Parts = std::tuple<double, std::uint64_t, std::uint32_t, std::uint32_t, DropoutMode, Int,
                           Int, std::optional<Int>, State>;
  double drop;
  std::uint64_t seed;
  std::uint32_t layer, step;
  DropoutMode mode;
  Int row_offset, col_offset;
  std::optional<Int> global_cols;
  State state;

  // Of dropout over a tensor with these sizes, which is all columns from col_offset on by default.
  DropoutRule rule(const char* op, const Dims& x) const {
    const Int cols = x.empty() ? 1 : x.back();
    const bool near = 0 <= col_offset && col_offset < Int{1} << 32;  // else it is refused
    const Int wide = global_cols.value_or(near ? cols + col_offset : cols);
    const DropoutShape shape = dropout_shape(op, x, drop, row_offset, col_offset, wide);
    const double scale = mode == DropoutMode::kInverted ? 1.0 / (1.0 - drop) : 1.0;
    return {shape, drop, static_cast<float>(scale), seed, layer, step, state};
  }
};

// Learning rates and momenta of parameters: a row for each number up to that of a tensor.
inline void expect_rates(Call& call, const Tensor& rates, Natural number) {
  if (rates.left_out) return;
  const Int rows = rates.dims.empty() ? 0 : rates.dims[0];
  call.expect(rates, {std::max<Int>(rows, number.value), 2},
              "learning rate and momentum of each parameter");
}

// The shape, with the type of the call's activations.
template <class Shape>
Shape stored(const Call& call, Shape shape) {
  shape.storage = call.storage();
  return shape;
}

}  // namespace convnet
