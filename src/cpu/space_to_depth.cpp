// Strided convolutions by Winograd's algorithm: images and filters are copied into blocks, the
// convolution of stride 1 runs on those, and gradients are copied back.
#include "space_to_depth.h"

#include <algorithm>
#include <cstring>

#include "amx.h"
#include "elements.h"
#include "onednn.h"
#include "parallel.h"
#include "winograd.h"

namespace convnet {
namespace {

// A batch of images (or filters) [n, h, w, c] as blocks [n, rows, columns, d, d, c]: pixel
// (d i - pad_h + di, d j - pad_w + dj) lies in block (i, j) at (di, dj).
struct Blocks {
  int n, h, w, c;
  int d, rows, columns, pad_h, pad_w;

  std::int64_t count() const { return std::int64_t{n} * rows * columns * d * d * c; }
};

ConvShape unstrided(const ConvShape& s) {
  const int d = s.stride_h;
  ConvShape u = s;
  u.r = static_cast<int>(ceil_div(s.r, d));
  u.s = static_cast<int>(ceil_div(s.s, d));
  u.h = s.p + u.r - 1;
  u.w = s.q + u.s - 1;
  u.c = s.c * d * d;
  u.stride_h = u.stride_w = 1;
  u.pad_h = u.pad_w = 0;
  return u;
}

Blocks image_blocks(const ConvShape& s) {
  const ConvShape u = unstrided(s);
  return {s.n, s.h, s.w, s.c, s.stride_h, u.h, u.w, s.pad_h, s.pad_w};
}

Blocks filter_blocks(const ConvShape& s) {
  const ConvShape u = unstrided(s);
  return {s.k, s.r, s.s, s.c, s.stride_h, u.r, u.s, 0, 0};
}

// copy(pixels, block, count): for every run of pixels of one row that lie side by side in a block,
// `count` numbers of both; to zero(block, count) what lies outside the image.
template <class Pixel, class BlockPixel, class Copy, class Zero>
void for_runs(const Blocks& b, Pixel* pixels, BlockPixel* blocks, const Copy& copy,
              const Zero& zero) {
  const int run = b.d * b.c;
  parallel_for(std::int64_t{b.n} * b.rows, [&](std::int64_t task) {
    const std::int64_t n = task / b.rows;
    BlockPixel* block = blocks + task * b.columns * b.d * run;
    for (int di = 0; di < b.d; ++di) {
      const std::int64_t h = task % b.rows * b.d - b.pad_h + di;
      Pixel* row = pixels + (n * b.h + h) * b.w * b.c;
      for (int j = 0; j < b.columns; ++j) {
        BlockPixel* to = block + (std::int64_t{j} * b.d + di) * run;
        const int first = j * b.d - b.pad_w;  // columns [first, first + d) of the image
        const int begin = std::max(first, 0), end = std::min(first + b.d, b.w);
        if (h < 0 || h >= b.h || begin >= end) {
          zero(to, run);
          continue;
        }
        zero(to, (begin - first) * b.c);
        copy(row + std::int64_t{begin} * b.c, to + (begin - first) * b.c, (end - begin) * b.c);
        zero(to + (end - first) * b.c, (first + b.d - end) * b.c);
      }
    }
  });
}

template <class T>
void to_blocks(const Blocks& b, const T* pixels, T* blocks) {
  for_runs(
      b, pixels, blocks, [](const T* from, T* to, int count) { std::copy_n(from, count, to); },
      [](T* to, int count) { std::fill_n(to, count, T{}); });
}

// Pixels that no block holds are zero afterwards.
template <class T>
void from_blocks(const Blocks& b, const T* blocks, T* pixels) {
  const std::int64_t row = std::int64_t{b.w} * b.c;
  parallel_chunks(b.n * b.h * row, kChunk, [&](std::int64_t begin, std::int64_t count) {
    std::fill_n(pixels + begin, count, T{});
  });
  for_runs(
      b, pixels, blocks, [](T* to, const T* from, int count) { std::copy_n(from, count, to); },
      [](const T*, int) {});
}

template <class T>
T* take(Scratch& scratch, const Blocks& blocks) {
  return static_cast<T*>(scratch.take(static_cast<std::size_t>(blocks.count()) * sizeof(T)));
}

std::int64_t image_bytes(const ConvShape& s) {
  const int each = s.storage == Storage::kBfloat16 ? 2 : 4;
  return Scratch::padded(static_cast<std::size_t>(image_blocks(s).count() * each));
}

std::int64_t filter_bytes(const ConvShape& s) {
  return Scratch::padded(static_cast<std::size_t>(filter_blocks(s).count() * 4));
}

}  // namespace

namespace {
bool has_form(const ConvShape& s) {
  return s.stride_h == s.stride_w && s.stride_h >= 2 && s.groups == 1;
}
}  // namespace

bool space_to_depth_suits(const ConvShape& s, Pass pass, double direct) {
  if (!has_form(s)) return false;
  // oneDNN computes the gradient of a strided convolution's input at a sixth of its usual rate
  // (conv1 of the paper: 39 of 240 GFLOP/s); half of that lead is counted.
  return winograd_suits(unstrided(s), pass, direct * (pass == Pass::kDgrad ? 3 : 1));
}

std::optional<double> space_to_depth_amx_cost(const ConvShape& s, Pass pass) {
  if (!has_form(s) || pass != Pass::kWgrad) return std::nullopt;
  return amx_cost(unstrided(s), pass);
}

std::int64_t space_to_depth_workspace(const ConvShape& s, Pass pass, Precision precision) {
  const ConvShape inner = unstrided(s);
  return image_bytes(s) + filter_bytes(s) +
         (precision == Precision::kBf16 ? amx_workspace(inner, pass)
                                        : winograd_workspace(inner, pass));
}

FpropBytes space_to_depth_fprop_bytes(const ConvShape& s) {
  FpropBytes sizes = winograd_fprop_bytes(unstrided(s));
  sizes.prepare += filter_bytes(s);
  sizes.multiply += image_bytes(s);
  return sizes;
}

void space_to_depth_prepare(const ConvShape& s, const float* w, Workspace prepared,
                            Workspace workspace) {
  Scratch scratch("conv_prepare", workspace);
  const Blocks filters = filter_blocks(s);
  float* w_blocks = take<float>(scratch, filters);
  to_blocks(filters, w, w_blocks);
  winograd_prepare(unstrided(s), w_blocks, prepared, scratch.rest());
}

template <class T>
void space_to_depth_fprop(const ConvShape& s, const T* x, Workspace prepared, const float* b,
                          bool relu, T* y, Workspace workspace) {
  Scratch scratch("conv_fprop", workspace);
  const Blocks images = image_blocks(s);
  T* x_blocks = take<T>(scratch, images);
  to_blocks(images, x, x_blocks);
  winograd_fprop<T>(unstrided(s), x_blocks, prepared, b, relu, y, scratch.rest());
}

template <class T>
void space_to_depth_dgrad(const ConvShape& s, const T* dy, const float* w, const T* relu_mask,
                          T* dx, Workspace workspace) {
  Scratch scratch("conv_dgrad", workspace);
  const Blocks images = image_blocks(s), filters = filter_blocks(s);
  T* dx_blocks = take<T>(scratch, images);
  float* w_blocks = take<float>(scratch, filters);
  to_blocks(filters, w, w_blocks);
  winograd_dgrad<T>(unstrided(s), dy, w_blocks, nullptr, dx_blocks, scratch.rest());
  from_blocks(images, dx_blocks, dx);
  apply_relu_mask(count(x_dims(s)), relu_mask, dx);
}

template <class T>
void space_to_depth_wgrad(const ConvShape& s, Precision precision, const T* x, const T* dy,
                          float* dw, float* db, Workspace workspace) {
  Scratch scratch("conv_wgrad", workspace);
  const Blocks images = image_blocks(s), filters = filter_blocks(s);
  T* x_blocks = take<T>(scratch, images);
  float* dw_blocks = take<float>(scratch, filters);
  to_blocks(images, x, x_blocks);
  const ConvShape inner = unstrided(s);
  if (precision != Precision::kBf16) {
    winograd_wgrad<T>(inner, x_blocks, dy, dw_blocks, db, scratch.rest());
  } else if constexpr (std::is_same_v<T, Bfloat16>) {
    amx_wgrad(inner, x_blocks, dy, dw_blocks, db, scratch.rest());
  }
  from_blocks(filters, dw_blocks, dw);
}

CONVNET_FOR_BOTH_TYPES(space_to_depth_fprop);
CONVNET_FOR_BOTH_TYPES(space_to_depth_dgrad);
CONVNET_FOR_BOTH_TYPES(space_to_depth_wgrad);

}  // namespace convnet
