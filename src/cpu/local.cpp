// Locally connected layer: a convolution whose filters differ from place to place (ops.h).
//   y[n,p,q,k] = b[p,q,k] + sum_{r,s,c} x[n, h, w, g C/G + c] * w[p,q,k,r,s,c]
//   h = p*stride_h - pad_h + r,  w = q*stride_w - pad_w + s,  g = k / (K/G);  x is zero outside
//
// At one place and for one group this is a small matrix product over the batch,
//   Y [N, K/G] = X [N, R S C/G] W^T [R S C/G, K/G],
// with X gathered from the image into a patch matrix. oneDNN's sgemm does the product on one
// thread, and places run in parallel. The gradient of x adds overlapping patches, so there it is
// images that run in parallel, and each adds its places in order.
#include <oneapi/dnnl/dnnl.h>

#include <cstring>
#include <memory>
#include <stdexcept>

#include "elements.h"
#include "onednn.h"

namespace convnet {
namespace {

// Sizes and distances in floats that every pass needs.
struct Geometry {
  std::int64_t group_channels, group_filters, depth;  // C/G, K/G, R S C/G
  std::int64_t places;                                // P Q
  std::int64_t x_image, y_image;                      // from one image to the next
  std::int64_t images;                                // per patch matrix
};

Geometry geometry(const ConvShape& shape) {
  Geometry sizes{};
  sizes.group_channels = shape.c / shape.groups;
  sizes.group_filters = shape.k / shape.groups;
  sizes.depth = std::int64_t{shape.r} * shape.s * sizes.group_channels;
  sizes.places = std::int64_t{shape.p} * shape.q;
  sizes.x_image = std::int64_t{shape.h} * shape.w * shape.c;
  sizes.y_image = sizes.places * shape.k;
  // A patch matrix of half a megabyte stays in the L2 cache.
  sizes.images = std::clamp<std::int64_t>(131072 / sizes.depth, 16, 128);
  return sizes;
}

// run(offset in the image, offset in the patch, floats) for the contiguous pieces of the patch at
// `place` that lie on the image.
template <class Run>
void for_pieces(const ConvShape& shape, std::int64_t place, std::int64_t group, const Run& run) {
  const std::int64_t channels = shape.c / shape.groups;
  const std::int64_t top = place / shape.q * shape.stride_h - shape.pad_h;
  const std::int64_t left = place % shape.q * shape.stride_w - shape.pad_w;
  const std::int64_t s_begin = std::max<std::int64_t>(0, -left);
  const std::int64_t s_end = std::min<std::int64_t>(shape.s, shape.w - left);
  if (s_begin >= s_end) return;
  for (std::int64_t r = 0; r < shape.r; ++r) {
    const std::int64_t h = top + r;
    if (h < 0 || h >= shape.h) continue;
    const std::int64_t pixel = (h * shape.w + left + s_begin) * shape.c + group * channels;
    const std::int64_t tap = (r * shape.s + s_begin) * channels;
    if (shape.groups == 1) {
      run(pixel, tap, (s_end - s_begin) * channels);
    } else {
      for (std::int64_t s = 0; s < s_end - s_begin; ++s) {
        run(pixel + s * shape.c, tap + s * channels, channels);
      }
    }
  }
}

// Room for a patch matrix, not cleared.
std::unique_ptr<float[]> make_patches(const Geometry& sizes, std::int64_t images) {
  return std::unique_ptr<float[]>(new float[static_cast<std::size_t>(images * sizes.depth)]);
}

// patches [count, depth] = the patches of `count` images from x on.
template <class T>
void gather(const ConvShape& shape, const Geometry& sizes, std::int64_t place, std::int64_t group,
            std::int64_t count, const T* x, float* patches) {
  std::int64_t on_image = 0;
  for_pieces(shape, place, group,
             [&](std::int64_t, std::int64_t, std::int64_t floats) { on_image += floats; });
  if (on_image < sizes.depth) std::fill(patches, patches + count * sizes.depth, 0.0f);
  for_pieces(shape, place, group, [&](std::int64_t from, std::int64_t to, std::int64_t floats) {
    for (std::int64_t n = 0; n < count; ++n) {
      const T* pixels = x + n * sizes.x_image + from;
      float* patch = patches + n * sizes.depth + to;
      for (std::int64_t i = 0; i < floats; ++i) patch[i] = read(pixels[i]);
    }
  });
}

void scatter_add(const ConvShape& shape, const Geometry& sizes, std::int64_t place,
                 std::int64_t group, std::int64_t count, const float* patches, float* dx) {
  for_pieces(shape, place, group, [&](std::int64_t to, std::int64_t from, std::int64_t floats) {
    for (std::int64_t n = 0; n < count; ++n) {
      const float* patch = patches + n * sizes.depth + from;
      float* pixel = dx + n * sizes.x_image + to;
      for (std::int64_t i = 0; i < floats; ++i) pixel[i] += patch[i];
    }
  });
}

// C [m, n] = op(A) [m, k] op(B) [k, n] + beta C, row-major with the given row strides.
void multiply(char transpose_a, char transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
              const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride,
              float beta, float* c, std::int64_t c_stride) {
  const dnnl_status_t status = dnnl_sgemm(transpose_a, transpose_b, m, n, k, 1.0f, a, a_stride, b,
                                          b_stride, beta, c, c_stride);
  if (status != dnnl_success) throw std::runtime_error("local layer: oneDNN's sgemm failed");
}

// Rows of y or dy, of `columns` numbers each: where they lie, or, of bfloat16, in float32 beside.
class Rows {
 public:
  Rows(float* first, std::int64_t stride, std::int64_t, std::int64_t)
      : first(first), stride(stride) {}
  Rows(const float* first, std::int64_t stride, std::int64_t, std::int64_t)
      : first(const_cast<float*>(first)), stride(stride) {}
  Rows(Bfloat16*, std::int64_t, std::int64_t count, std::int64_t columns)
      : wide_(static_cast<std::size_t>(count * columns)), first(wide_.data()), stride(columns) {}
  Rows(const Bfloat16* rows, std::int64_t from, std::int64_t count, std::int64_t columns)
      : Rows(static_cast<Bfloat16*>(nullptr), from, count, columns) {
    for (std::int64_t n = 0; n < count; ++n) {
      for (std::int64_t k = 0; k < columns; ++k) first[n * columns + k] = read(rows[n * from + k]);
    }
  }

  // Puts them where they belong.
  void write_to(float*, std::int64_t, std::int64_t, std::int64_t) const {}
  void write_to(Bfloat16* to, std::int64_t to_stride, std::int64_t count,
                std::int64_t columns) const {
    for (std::int64_t n = 0; n < count; ++n) {
      for (std::int64_t k = 0; k < columns; ++k)
        write(to + n * to_stride + k, first[n * stride + k]);
    }
  }

 private:
  std::vector<float> wide_;

 public:
  float* const first;
  const std::int64_t stride;
};

void add_bias(std::int64_t rows, std::int64_t row_stride, std::int64_t filters, const float* b,
              bool relu, float* y) {
  for (std::int64_t n = 0; n < rows; ++n) {
    float* row = y + n * row_stride;
    if (b != nullptr) {
      for (std::int64_t k = 0; k < filters; ++k) row[k] += b[k];
    }
    if (relu) {  // written so that NaN stays
      for (std::int64_t k = 0; k < filters; ++k) row[k] = 0.0f > row[k] ? 0.0f : row[k];
    }
  }
}

}  // namespace

template <class T>
void local_fprop(const ConvShape& shape, const T* x, const float* w, const float* b, bool relu,
                 T* y, Stream) {
  const Geometry sizes = geometry(shape);
  const std::int64_t blocks = ceil_div(shape.n, sizes.images);
  parallel_single_threaded(sizes.places * blocks, [&](std::int64_t task) {
    const std::int64_t place = task / blocks, first = task % blocks * sizes.images;
    const std::int64_t count = std::min(sizes.images, shape.n - first);
    const auto patches = make_patches(sizes, count);
    T* out = y + first * sizes.y_image + place * shape.k;
    const Rows rows(out, sizes.y_image, count, shape.k);
    for (std::int64_t g = 0; g < shape.groups; ++g) {
      gather(shape, sizes, place, g, count, x + first * sizes.x_image, patches.get());
      const std::int64_t filter = place * shape.k + g * sizes.group_filters;
      multiply('N', 'T', count, sizes.group_filters, sizes.depth, patches.get(), sizes.depth,
               w + filter * sizes.depth, sizes.depth, 0.0f, rows.first + g * sizes.group_filters,
               rows.stride);
    }
    add_bias(count, rows.stride, shape.k, b == nullptr ? nullptr : b + place * shape.k, relu,
             rows.first);
    rows.write_to(out, sizes.y_image, count, shape.k);
  });
}

template <class T>
void local_dgrad(const ConvShape& shape, const T* dy, const float* w, const T* relu_mask, T* dx,
                 Stream stream) {
  constexpr std::int64_t kImages = 16;  // per task: rows enough for sgemm, and tasks enough
  const Geometry sizes = geometry(shape);
  parallel_single_threaded(ceil_div(shape.n, kImages), [&](std::int64_t task) {
    const std::int64_t first = task * kImages;
    const std::int64_t count = std::min(kImages, shape.n - first);
    const auto patches = make_patches(sizes, count);
    const Rows images(dx + first * sizes.x_image, sizes.x_image, count, sizes.x_image);
    std::fill(images.first, images.first + count * sizes.x_image, 0.0f);
    for (std::int64_t place = 0; place < sizes.places; ++place) {
      for (std::int64_t g = 0; g < shape.groups; ++g) {
        const std::int64_t filter = place * shape.k + g * sizes.group_filters;
        const Rows grad(dy + first * sizes.y_image + filter, sizes.y_image, count,
                        sizes.group_filters);
        multiply('N', 'N', count, sizes.depth, sizes.group_filters, grad.first, grad.stride,
                 w + filter * sizes.depth, sizes.depth, 0.0f, patches.get(), sizes.depth);
        scatter_add(shape, sizes, place, g, count, patches.get(), images.first);
      }
    }
    images.write_to(dx + first * sizes.x_image, sizes.x_image, count, sizes.x_image);
  });
  if (relu_mask != nullptr) {
    activation_bprop(Activation::kRelu, 0.0f, 0.0f, shape.n * sizes.x_image, relu_mask, dx, dx,
                     stream);
  }
}

template <class T>
void local_wgrad(const ConvShape& shape, const T* x, const T* dy, float* dw, float* db, Stream) {
  const Geometry sizes = geometry(shape);
  parallel_single_threaded(sizes.places * shape.groups, [&](std::int64_t task) {
    const std::int64_t place = task / shape.groups, g = task % shape.groups;
    const std::int64_t filter = place * shape.k + g * sizes.group_filters;
    const std::int64_t images = std::min<std::int64_t>(sizes.images, shape.n);
    const auto patches = make_patches(sizes, images);
    for (std::int64_t first = 0; first < shape.n; first += images) {
      const std::int64_t count = std::min(images, shape.n - first);
      gather(shape, sizes, place, g, count, x + first * sizes.x_image, patches.get());
      const Rows grad(dy + first * sizes.y_image + filter, sizes.y_image, count,
                      sizes.group_filters);
      multiply('T', 'N', sizes.group_filters, sizes.depth, count, grad.first, grad.stride,
               patches.get(), sizes.depth, first == 0 ? 0.0f : 1.0f, dw + filter * sizes.depth,
               sizes.depth);
    }
    if (db == nullptr) return;
    float* bias = db + filter;
    std::fill(bias, bias + sizes.group_filters, 0.0f);
    for (std::int64_t n = 0; n < shape.n; ++n) {
      const T* grad = dy + n * sizes.y_image + filter;
      for (std::int64_t k = 0; k < sizes.group_filters; ++k) bias[k] += read(grad[k]);
    }
  });
}

CONVNET_FOR_BOTH_TYPES(local_fprop);
CONVNET_FOR_BOTH_TYPES(local_dgrad);
CONVNET_FOR_BOTH_TYPES(local_wgrad);

}  // namespace convnet
