#include "shapes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace convnet {
namespace {

constexpr std::int64_t kMaxElements = std::numeric_limits<std::int32_t>::max();
// Strides, pads and windows beyond this cannot belong to a tensor that passes; refusing them early
// keeps the arithmetic below far from overflow.
constexpr std::int64_t kMaxExtent = 1 << 20;

void check_range(const char* op, const char* arg, std::int64_t value, std::int64_t low,
                 std::int64_t high) {
  if (value < low || value > high) {
    fail(op, arg, "between " + std::to_string(low) + " and " + std::to_string(high),
         std::to_string(value));
  }
}

void check_window(const char* op, const Window& window) {
  check_range(op, "stride_h", window.stride_h, 1, kMaxExtent);
  check_range(op, "stride_w", window.stride_w, 1, kMaxExtent);
  check_range(op, "pad_h", window.pad_h, 0, kMaxExtent);
  check_range(op, "pad_w", window.pad_w, 0, kMaxExtent);
}

// The groups of a convolution whose filters are `channels` deep.
void check_groups(const char* op, std::int64_t groups, std::int64_t c, std::int64_t k,
                  std::int64_t channels) {
  check_range(op, "groups", groups, 1, kMaxElements);
  const std::string in_groups = " (groups=" + std::to_string(groups) + ")";
  if (c % groups != 0) {
    fail(op, "groups", "a divisor of the " + std::to_string(c) + " channels of x",
         std::to_string(groups));
  }
  if (k % groups != 0) {
    fail(op, "groups", "a divisor of the " + std::to_string(k) + " filters",
         std::to_string(groups));
  }
  if (channels != c / groups) {
    fail(op, "w", std::to_string(c / groups) + " channels per filter" + in_groups,
         std::to_string(channels), "filters are KRSC with C / groups channels");
  }
}

ConvShape windows_over(const char* op, const Dims& x, const Window& window, std::int64_t r,
                       std::int64_t s) {
  check_window(op, window);
  ConvShape shape{};
  shape.n = static_cast<int>(x[0]);
  shape.h = static_cast<int>(x[1]);
  shape.w = static_cast<int>(x[2]);
  shape.c = static_cast<int>(x[3]);
  shape.r = static_cast<int>(r);
  shape.s = static_cast<int>(s);
  shape.stride_h = static_cast<int>(window.stride_h);
  shape.stride_w = static_cast<int>(window.stride_w);
  shape.pad_h = static_cast<int>(window.pad_h);
  shape.pad_w = static_cast<int>(window.pad_w);
  shape.p = static_cast<int>(
      output_size(op, "height", x[1], r, window.stride_h, window.pad_h, window.rounding, false));
  shape.q = static_cast<int>(
      output_size(op, "width", x[2], s, window.stride_w, window.pad_w, window.rounding, false));
  return shape;
}

}  // namespace

void fail(const char* op, const char* arg, const std::string& expected, const std::string& got,
          const std::string& hint) {
  throw std::invalid_argument(std::string(op) + ": " + arg + ": expected " + expected + ", got " +
                              got + (hint.empty() ? "" : "; " + hint));
}

std::string to_string(const Dims& dims) {
  std::string text = "(";
  for (std::size_t i = 0; i < dims.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(dims[i]);
  }
  return text + (dims.size() == 1 ? ",)" : ")");
}

std::int64_t count(const Dims& dims) {
  std::int64_t product = 1;
  for (std::int64_t dim : dims) product *= dim;
  return product;
}

void check_countable(const char* op, const char* arg, const Dims& dims) {
  std::int64_t product = 1;
  for (std::int64_t dim : dims) {
    if (dim < 1) fail(op, arg, "every size at least 1", "shape " + to_string(dims));
    if (dim > kMaxElements / product) {
      fail(op, arg, "fewer than 2^31 elements", "shape " + to_string(dims));
    }
    product *= dim;
  }
}

void check_rank(const char* op, const char* arg, const Dims& got, std::size_t rank,
                const char* layout) {
  if (got.size() != rank) {
    fail(op, arg, std::to_string(rank) + " dimensions " + layout, "shape " + to_string(got));
  }
  check_countable(op, arg, got);
}

void check_dims(const char* op, const char* arg, const Dims& got, const Dims& expected,
                const char* hint) {
  if (got != expected) {
    fail(op, arg, "shape " + to_string(expected), to_string(got), hint);
  }
}

std::int64_t output_size(const char* op, const char* axis, std::int64_t size, std::int64_t window,
                         std::int64_t stride, std::int64_t pad, Rounding rounding, bool inside) {
  const std::int64_t room = size + 2 * pad - window;
  const std::int64_t up = rounding == Rounding::kCeil ? stride - 1 : 0;
  if (room < 0) {
    fail(op, "window",
         "a " + std::string(axis) + " of at most " + std::to_string(size + 2 * pad) + " (input " +
             std::to_string(size) + " + 2 * pad " + std::to_string(pad) + ")",
         std::to_string(window));
  }
  const std::int64_t positions = 1 + (room + up) / stride;
  if (!inside) return positions;
  return std::min(positions, (size + pad + stride - 1) / stride);
}

ConvShape conv_shape(const char* op, const Dims& x, const Dims& w, const Window& window,
                     std::int64_t groups) {
  check_rank(op, "x", x, 4, "[N, H, W, C]");
  check_rank(op, "w", w, 4, "[K, R, S, C / groups]");
  check_groups(op, groups, x[3], w[0], w[3]);
  ConvShape shape = windows_over(op, x, window, w[1], w[2]);
  shape.k = static_cast<int>(w[0]);
  shape.groups = static_cast<int>(groups);
  check_countable(op, "y", y_dims(shape));
  return shape;
}

ConvShape local_shape(const char* op, const Dims& x, const Dims& w, const Window& window,
                      std::int64_t groups) {
  check_rank(op, "x", x, 4, "[N, H, W, C]");
  check_rank(op, "w", w, 6, "[P, Q, K, R, S, C / groups]");
  check_groups(op, groups, x[3], w[2], w[5]);
  ConvShape shape = windows_over(op, x, window, w[3], w[4]);
  shape.k = static_cast<int>(w[2]);
  shape.groups = static_cast<int>(groups);
  check_countable(op, "y", y_dims(shape));
  check_dims(op, "w", w, local_w_dims(shape), "every output position has filters of its own");
  return shape;
}

DenseShape dense_shape(const char* op, const Dims& x, const Dims& w) {
  check_rank(op, "x", x, 2, "[N, C]");
  check_rank(op, "w", w, 2, "[K, C]");
  if (w[1] != x[1]) {
    fail(op, "w", std::to_string(x[1]) + " columns, the width of x " + to_string(x),
         "shape " + to_string(w), "weights are [K, C]");
  }
  check_countable(op, "y", {x[0], w[0]});
  return DenseShape{static_cast<int>(x[0]), static_cast<int>(x[1]), static_cast<int>(w[0])};
}

PoolShape pool_shape(const char* op, const Dims& x, std::int64_t size_h, std::int64_t size_w,
                     const Window& window) {
  check_rank(op, "x", x, 4, "[N, H, W, C]");
  check_window(op, window);
  check_range(op, "size_h", size_h, 1, kMaxExtent);
  check_range(op, "size_w", size_w, 1, kMaxExtent);
  if (window.pad_h >= size_h || window.pad_w >= size_w) {
    fail(op, "pad", "less than the window, " + to_string({size_h, size_w}),
         to_string({window.pad_h, window.pad_w}), "else a window would hold no element");
  }
  PoolShape shape{};
  shape.n = static_cast<int>(x[0]);
  shape.h = static_cast<int>(x[1]);
  shape.w = static_cast<int>(x[2]);
  shape.c = static_cast<int>(x[3]);
  shape.size_h = static_cast<int>(size_h);
  shape.size_w = static_cast<int>(size_w);
  shape.stride_h = static_cast<int>(window.stride_h);
  shape.stride_w = static_cast<int>(window.stride_w);
  shape.pad_h = static_cast<int>(window.pad_h);
  shape.pad_w = static_cast<int>(window.pad_w);
  shape.p = static_cast<int>(output_size(op, "height", x[1], size_h, window.stride_h, window.pad_h,
                                         window.rounding, true));
  shape.q = static_cast<int>(
      output_size(op, "width", x[2], size_w, window.stride_w, window.pad_w, window.rounding, true));
  check_countable(op, "y", y_dims(shape));
  return shape;
}

BlurShape blur_shape(const char* op, const Dims& x, std::int64_t size, double deviation) {
  check_rank(op, "x", x, 4, "[N, H, W, C]");
  if (size < 3 || size > kMostBlurSize || size % 2 == 0) {
    fail(op, "size", "3, 5, 7 or 9 pixels", std::to_string(size));
  }
  if (!(deviation > 0.0 && std::isfinite(deviation))) {
    fail(op, "std", "a positive number of pixels", std::to_string(deviation));
  }
  BlurShape shape{};
  shape.n = static_cast<int>(x[0]);
  shape.h = static_cast<int>(x[1]);
  shape.w = static_cast<int>(x[2]);
  shape.c = static_cast<int>(x[3]);
  shape.size = static_cast<int>(size);
  double weights[kMostBlurSize], sum = 0.0;
  for (int i = 0; i < shape.size; ++i) {
    const double distance = (i - shape.size / 2) / deviation;
    weights[i] = std::exp(-distance * distance / 2.0);
    sum += weights[i];
  }
  for (int i = 0; i < shape.size; ++i) shape.weights[i] = static_cast<float>(weights[i] / sum);
  return shape;
}

NailbedShape nailbed_shape(const char* op, const Dims& x, std::int64_t stride, std::int64_t start) {
  check_rank(op, "x", x, 4, "[N, H, W, C]");
  check_range(op, "stride", stride, 1, kMaxExtent);
  check_range(op, "start", start, 0, std::min(x[1], x[2]) - 1);
  NailbedShape shape{};
  shape.n = static_cast<int>(x[0]);
  shape.h = static_cast<int>(x[1]);
  shape.w = static_cast<int>(x[2]);
  shape.c = static_cast<int>(x[3]);
  shape.p = static_cast<int>(
      output_size(op, "height", x[1] - start, 1, stride, 0, Rounding::kFloor, false));
  shape.q = static_cast<int>(
      output_size(op, "width", x[2] - start, 1, stride, 0, Rounding::kFloor, false));
  shape.stride = static_cast<int>(stride);
  shape.start = static_cast<int>(start);
  return shape;
}

LrnShape lrn_shape(const char* op, const Dims& x, std::int64_t n, double k, double alpha,
                   double beta, std::int64_t groups, bool alpha_is_mean) {
  if (x.empty()) fail(op, "x", "at least 1 dimension [..., C]", "shape ()");
  check_countable(op, "x", x);
  const std::int64_t c = x.back();
  check_range(op, "n", n, 1, kMaxExtent);
  check_range(op, "groups", groups, 1, c);
  if (c % groups != 0) {
    fail(op, "groups", "a divisor of the " + std::to_string(c) + " channels",
         std::to_string(groups));
  }
  // s must stay positive, or s^-beta has no value.
  if (!(k > 0.0 && k < 1e30)) fail(op, "k", "a positive number", std::to_string(k));
  if (!(alpha >= 0.0 && alpha < 1e30)) fail(op, "alpha", "0 or more", std::to_string(alpha));
  if (!(beta >= 0.0 && beta < 1e3)) fail(op, "beta", "between 0 and 1000", std::to_string(beta));
  LrnShape shape{};
  shape.pixels = static_cast<int>(count(x) / c);
  shape.c = static_cast<int>(c);
  shape.n = static_cast<int>(n);
  shape.groups = static_cast<int>(groups);
  shape.k = static_cast<float>(k);
  shape.alpha = static_cast<float>(alpha_is_mean ? alpha / static_cast<double>(n) : alpha);
  shape.beta = static_cast<float>(beta);
  return shape;
}

DropoutShape dropout_shape(const char* op, const Dims& x, double drop, std::int64_t row_offset,
                           std::int64_t col_offset, std::int64_t global_cols) {
  if (x.empty()) fail(op, "x", "at least 1 dimension", "shape ()");
  check_countable(op, "x", x);
  if (!(drop >= 0.0 && drop < 1.0)) {
    fail(op, "drop", "a probability in [0, 1)", std::to_string(drop));
  }
  const std::int64_t cols = x.back();
  const std::int64_t limit = std::int64_t{1} << 40;
  check_range(op, "row_offset", row_offset, 0, limit);
  check_range(op, "global_cols", global_cols, cols, kMaxElements);
  check_range(op, "col_offset", col_offset, 0, global_cols - cols);
  if (row_offset > limit / global_cols) {
    fail(op, "row_offset", "fewer than 2^40 elements before this block",
         std::to_string(row_offset) + " rows of " + std::to_string(global_cols));
  }
  return DropoutShape{count(x) / cols, cols, row_offset, col_offset, global_cols};
}

SoftmaxShape softmax_shape(const char* op, const Dims& logits) {
  check_rank(op, "logits", logits, 2, "[N, classes]");
  return SoftmaxShape{static_cast<int>(logits[0]), static_cast<int>(logits[1])};
}

AugmentShape augment_shape(const char* op, const Dims& x, const Dims& mean, std::int64_t p,
                           std::int64_t q) {
  check_rank(op, "x", x, 4, "[N, H, W, C]");
  check_rank(op, "mean", mean, 3, "[H, W, C] or [1, 1, C]");
  const Dims whole{x[1], x[2], x[3]}, channel{1, 1, x[3]};
  if (mean != whole && mean != channel) {
    fail(op, "mean", "shape " + to_string(whole) + " or " + to_string(channel), to_string(mean));
  }
  check_range(op, "crop height", p, 1, kMaxExtent);
  check_range(op, "crop width", q, 1, kMaxExtent);
  check_countable(op, "y", {x[0], p, q, x[3]});
  AugmentShape shape{};
  shape.n = static_cast<int>(x[0]);
  shape.h = static_cast<int>(x[1]);
  shape.w = static_cast<int>(x[2]);
  shape.c = static_cast<int>(x[3]);
  shape.p = static_cast<int>(p);
  shape.q = static_cast<int>(q);
  shape.mean_h = static_cast<int>(mean[0]);
  shape.mean_w = static_cast<int>(mean[1]);
  return shape;
}

PeerShape peer_shape(const char* op, const Dims& dst, std::int64_t dst_offset, const Dims& src,
                     std::int64_t src_offset, std::int64_t cols, int dst_device, int src_device) {
  check_rank(op, "dst", dst, 2, "[rows, columns]");
  check_rank(op, "src", src, 2, "[rows, columns]");
  if (dst[0] != src[0]) {
    fail(op, "src", std::to_string(dst[0]) + " rows, as in dst " + to_string(dst),
         "shape " + to_string(src));
  }
  check_range(op, "cols", cols, 1, std::min(dst[1], src[1]));
  check_range(op, "dst_col", dst_offset, 0, dst[1] - cols);
  check_range(op, "src_col", src_offset, 0, src[1] - cols);
  return PeerShape{dst[0], cols, dst[1], src[1], dst_device, src_device};
}

PeerShape peer_block(const char* op, const Dims& src, std::int64_t src_offset, std::int64_t cols,
                     int other_device, int device) {
  check_rank(op, "src", src, 2, "[rows, columns]");
  check_range(op, "cols", cols, 1, src[1]);
  check_range(op, "src_col", src_offset, 0, src[1] - cols);
  return PeerShape{src[0], cols, 0, src[1], other_device, device};
}

Dims x_dims(const ConvShape& shape) { return {shape.n, shape.h, shape.w, shape.c}; }
Dims w_dims(const ConvShape& shape) { return {shape.k, shape.r, shape.s, shape.c / shape.groups}; }
Dims local_w_dims(const ConvShape& shape) {
  return {shape.p, shape.q, shape.k, shape.r, shape.s, shape.c / shape.groups};
}
Dims local_b_dims(const ConvShape& shape) { return {shape.p, shape.q, shape.k}; }
Dims y_dims(const ConvShape& shape) { return {shape.n, shape.p, shape.q, shape.k}; }
Dims x_dims(const PoolShape& shape) { return {shape.n, shape.h, shape.w, shape.c}; }
Dims y_dims(const PoolShape& shape) { return {shape.n, shape.p, shape.q, shape.c}; }
Dims x_dims(const NailbedShape& shape) { return {shape.n, shape.h, shape.w, shape.c}; }
Dims y_dims(const NailbedShape& shape) { return {shape.n, shape.p, shape.q, shape.c}; }
Dims y_dims(const AugmentShape& shape) { return {shape.n, shape.p, shape.q, shape.c}; }

}  // namespace convnet
