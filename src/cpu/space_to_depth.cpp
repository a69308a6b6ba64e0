// Strided convolutions by Winograd's algorithm: images and filters are copied into blocks, the
// convolution of stride 1 runs on those, and gradients are copied back.
#include "space_to_depth.h"

#include <algorithm>
#include <cstring>

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
// `count` floats of both; to zero(block, count) what lies outside the image.
template <class Float, class BlockFloat, class Copy, class Zero>
void for_runs(const Blocks& b, Float* pixels, BlockFloat* blocks, const Copy& copy,
              const Zero& zero) {
  const int run = b.d * b.c;
  parallel_for(std::int64_t{b.n} * b.rows, [&](std::int64_t task) {
    const std::int64_t n = task / b.rows;
    BlockFloat* block = blocks + task * b.columns * b.d * run;
    for (int di = 0; di < b.d; ++di) {
      const std::int64_t h = task % b.rows * b.d - b.pad_h + di;
      Float* row = pixels + (n * b.h + h) * b.w * b.c;
      for (int j = 0; j < b.columns; ++j) {
        BlockFloat* to = block + (std::int64_t{j} * b.d + di) * run;
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

void to_blocks(const Blocks& b, const float* pixels, float* blocks) {
  for_runs(
      b, pixels, blocks,
      [](const float* from, float* to, int count) { std::copy_n(from, count, to); },
      [](float* to, int count) { std::fill_n(to, count, 0.0f); });
}

// Pixels that no block holds are zero afterwards.
void from_blocks(const Blocks& b, const float* blocks, float* pixels) {
  const std::int64_t row = std::int64_t{b.w} * b.c;
  parallel_chunks(b.n * b.h * row, kChunk, [&](std::int64_t begin, std::int64_t count) {
    std::fill_n(pixels + begin, count, 0.0f);
  });
  for_runs(
      b, pixels, blocks,
      [](float* to, const float* from, int count) { std::copy_n(from, count, to); },
      [](const float*, int) {});
}

std::size_t bytes(std::int64_t floats) { return static_cast<std::size_t>(floats) * sizeof(float); }

float* take(Scratch& scratch, const Blocks& blocks) {
  return static_cast<float*>(scratch.take(bytes(blocks.count())));
}

}  // namespace

bool space_to_depth_suits(const ConvShape& s, Pass pass, double direct) {
  if (s.stride_h != s.stride_w || s.stride_h < 2 || s.groups != 1) return false;
  // oneDNN computes the gradient of a strided convolution's input at a sixth of its usual rate
  // (conv1 of the paper: 39 of 240 GFLOP/s); half of that lead is counted.
  return winograd_suits(unstrided(s), pass, direct * (pass == Pass::kDgrad ? 3 : 1));
}

std::int64_t space_to_depth_workspace(const ConvShape& s, Pass pass) {
  return Scratch::padded(bytes(image_blocks(s).count())) +
         Scratch::padded(bytes(filter_blocks(s).count())) + winograd_workspace(unstrided(s), pass);
}

FpropBytes space_to_depth_fprop_bytes(const ConvShape& s) {
  FpropBytes sizes = winograd_fprop_bytes(unstrided(s));
  sizes.prepare += Scratch::padded(bytes(filter_blocks(s).count()));
  sizes.multiply += Scratch::padded(bytes(image_blocks(s).count()));
  return sizes;
}

void space_to_depth_prepare(const ConvShape& s, const float* w, Workspace prepared,
                            Workspace workspace) {
  Scratch scratch("conv_prepare", workspace);
  const Blocks filters = filter_blocks(s);
  float* w_blocks = take(scratch, filters);
  to_blocks(filters, w, w_blocks);
  winograd_prepare(unstrided(s), w_blocks, prepared, scratch.rest());
}

void space_to_depth_fprop(const ConvShape& s, const float* x, Workspace prepared, const float* b,
                          bool relu, float* y, Workspace workspace) {
  Scratch scratch("conv_fprop", workspace);
  const Blocks images = image_blocks(s);
  float* x_blocks = take(scratch, images);
  to_blocks(images, x, x_blocks);
  winograd_fprop(unstrided(s), x_blocks, prepared, b, relu, y, scratch.rest());
}

void space_to_depth_dgrad(const ConvShape& s, const float* dy, const float* w,
                          const float* relu_mask, float* dx, Workspace workspace) {
  Scratch scratch("conv_dgrad", workspace);
  const Blocks images = image_blocks(s), filters = filter_blocks(s);
  float *dx_blocks = take(scratch, images), *w_blocks = take(scratch, filters);
  to_blocks(filters, w, w_blocks);
  winograd_dgrad(unstrided(s), dy, w_blocks, nullptr, dx_blocks, scratch.rest());
  from_blocks(images, dx_blocks, dx);
  apply_relu_mask(count(x_dims(s)), relu_mask, dx);
}

void space_to_depth_wgrad(const ConvShape& s, const float* x, const float* dy, float* dw, float* db,
                          Workspace workspace) {
  Scratch scratch("conv_wgrad", workspace);
  const Blocks images = image_blocks(s), filters = filter_blocks(s);
  float *x_blocks = take(scratch, images), *dw_blocks = take(scratch, filters);
  to_blocks(images, x, x_blocks);
  winograd_wgrad(unstrided(s), x_blocks, dy, dw_blocks, db, scratch.rest());
  from_blocks(filters, dw_blocks, dw);
}

}  // namespace convnet
