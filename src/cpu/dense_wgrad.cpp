// Gradients of the weights of fully connected layers on the host, and the update by them.
//
//   dw = dy^T x,  db = sum over n of dy       x [N, C], dy [N, K], dw [K, C]
//   dense_wgrad_sgd: v = momentum v - decay w - rate dw;  w = w + v, where that is finite
//
// dw is cut into slabs of whole rows, by its shape alone, and each slab is a product of oneDNN.
// dense_wgrad writes it where it belongs; dense_wgrad_sgd into the workspace, where the caches keep
// it until w and velocity have been updated by it. So dw takes no memory of its own and is not
// fetched from there. Both run the same products, so the update has the bits it would have had.
// bfloat16 arrays are multiplied by AMX tiles (amx_dense.h), or are widened in the workspace first, unless
// oneDNN has the product of them.
#include "dense_wgrad.h"

#include <array>

#include "amx_dense.h"
#include "elements.h"
#include "parallel.h"
#include "product.h"
#include "reduced.h"
#include "sgd.h"
#include "widened.h"

namespace convnet {
namespace {

using dnnl::memory;

// Bytes of a slab: small enough for a shared cache, and large enough that cutting the product costs
// little, which takes the more the longer its sums are. Most layers are one slab.
constexpr std::int64_t kBytesPerCase = 128 << 10;
constexpr std::int64_t kFewestBytes = 4 << 20, kMostBytes = 16 << 20;
constexpr std::int64_t kRowStep = 16;       // slabs begin at multiples of it
constexpr std::int64_t kBiasColumns = 256;  // of db, for a thread

// Rows of a slab; the last one may have fewer.
std::int64_t slab_rows(const DenseShape& s) {
  const std::int64_t bytes = std::clamp(s.n * kBytesPerCase, kFewestBytes, kMostBytes);
  const std::int64_t slabs = ceil_div(std::int64_t{s.k} * s.c * 4, bytes);
  return std::min<std::int64_t>(s.k, ceil_div(ceil_div(s.k, slabs), kRowStep) * kRowStep);
}

std::shared_ptr<const Product> slab_product(const DenseShape& s, Precision precision,
                                            std::int64_t rows) {
  static PlanCache<Product> cache;
  const bool half = s.storage == Storage::kBfloat16;
  return cache.get({static_cast<int>(precision), half, s.n, s.c, s.k, static_cast<int>(rows)}, [&] {
    const auto f32 = memory::data_type::f32, type = half ? memory::data_type::bf16 : f32;
    const memory::desc dy({rows, s.n}, type, memory::dims{1, s.k});
    const memory::desc x({s.n, s.c}, type, memory::format_tag::ab);
    const memory::desc dw({rows, s.c}, f32, memory::format_tag::ab);
    return std::make_shared<Product>(Product::matmul(dy, x, {}, dw, user_scratchpad(precision)));
  });
}

// The rows of all slabs but the last, and of the last.
std::array<std::int64_t, 2> slab_sizes(const DenseShape& s) {
  const std::int64_t rows = slab_rows(s);
  return {rows, (s.k - 1) % rows + 1};
}

// Whether arrays of bfloat16 are multiplied as float32.
bool widens(const DenseShape& s, Precision by) {
  return s.storage == Storage::kBfloat16 && !(by == Precision::kBf16 && takes_bfloat16());
}

// What the products of slabs compute in, where `precision` is allowed.
Precision slab_precision(const DenseShape& shape, Precision precision) {
  if (precision == Precision::kFfma) return precision;
  const bool half = shape.storage == Storage::kBfloat16;
  if (half && precision != Precision::kBf16) return slab_precision(in_float32(shape), precision);
  if (!may_reduce(precision, shape.storage)) return Precision::kFp32;
  const DenseShape asked = takes_bfloat16() ? shape : in_float32(shape);
  for (const std::int64_t rows : slab_sizes(shape)) {
    if (!half && !reduction_pays(rows, shape.c, shape.n)) return Precision::kFp32;
    const auto product = slab_product(asked, precision, rows);
    if (!is_reduced(product->implementation(), shape.storage)) return Precision::kFp32;
  }
  return precision;
}

// Calls place(first row, scratch) for where each slab is to go, and done(first row, rows, slab).
template <class T, class Place, class Done>
void for_each_slab(const char* op, const DenseShape& s, Precision allowed, const T* x, const T* dy,
                   Workspace workspace, const Place& place, const Done& done) {
  const Precision precision = slab_precision(s, allowed);
  if constexpr (std::is_same_v<T, Bfloat16>) {
    if (widens(s, precision)) {
      Scratch scratch(op, workspace);
      const float* wide_x = widened(x, std::int64_t{s.n} * s.c, scratch);
      const float* wide_dy = widened(dy, std::int64_t{s.n} * s.k, scratch);
      return for_each_slab(op, in_float32(s), in_float32(precision), wide_x, wide_dy,
                           scratch.rest(), place, done);
    }
  }
  const std::int64_t most = slab_rows(s);
  for (std::int64_t row = 0; row < s.k; row += most) {
    const std::int64_t rows = std::min<std::int64_t>(most, s.k - row);
    Scratch scratch(op, workspace);
    float* const slab = place(row, rows, scratch);
    slab_product(s, precision, rows)->run(dy + row, x, nullptr, slab, scratch);
    done(row, rows, slab);
  }
}

template <class T>
CONVNET_INLINE void sum_columns(std::int64_t rows, std::int64_t columns, std::int64_t pitch,
                                const T* dy, float* db) {
  for (std::int64_t k = 0; k < columns; ++k) db[k] = 0.0f;
  for (std::int64_t n = 0; n < rows; ++n) {
    CONVNET_SIMD
    for (std::int64_t k = 0; k < columns; ++k) db[k] += read(dy[n * pitch + k]);
  }
}

template <class T>
void bias_gradient(const DenseShape& s, const T* dy, float* db) {
  if (db == nullptr) return;
  parallel_chunks(s.k, kBiasColumns, [&](std::int64_t begin, std::int64_t size) {
    vectorized<sum_columns<T>>(s.n, size, s.k, dy + begin, db + begin);
  });
}

}  // namespace

std::string dense_wgrad_kernel(const DenseShape& shape, Precision precision) {
  if (amx_dense_wgrad_suits(shape, precision)) return kernel_name("tiles", precision);
  return kernel_name("matmul", slab_precision(shape, precision));
}

std::int64_t dense_wgrad_workspace(const DenseShape& shape, Precision precision) {
  if (amx_dense_wgrad_suits(shape, precision)) return amx_dense_wgrad_workspace(shape);
  const Precision by = slab_precision(shape, precision);
  if (widens(shape, by)) {
    return dense_wgrad_workspace(in_float32(shape), in_float32(by)) +
           Scratch::array_bytes<float>(std::int64_t{shape.n} * shape.c) +
           Scratch::array_bytes<float>(std::int64_t{shape.n} * shape.k);
  }
  std::int64_t scratch = 0;
  for (const std::int64_t rows : slab_sizes(shape)) {
    const auto product = slab_product(shape, by, rows);
    scratch = std::max(scratch, product->workspace());
  }
  return scratch + Scratch::padded(static_cast<std::size_t>(4 * slab_rows(shape) * shape.c));
}

template <class T>
void dense_wgrad(const DenseShape& shape, Precision precision, const T* x, const T* dy, float* dw,
                 float* db, Workspace workspace, Stream) {
  bias_gradient(shape, dy, db);
  if constexpr (std::is_same_v<T, Bfloat16>) {
    if (amx_dense_wgrad_suits(shape, precision)) {
      return amx_dense_wgrad(
          "dense_wgrad", shape, x, dy, workspace, [&](const GradientBlock& block) {
            float* const first = dw + std::int64_t{block.row} * shape.c + block.column;
            for (int i = 0; i < block.rows; ++i) {
              std::copy_n(block.at(i), block.columns, first + std::int64_t{i} * shape.c);
            }
          });
    }
  }
  for_each_slab(
      "dense_wgrad", shape, precision, x, dy, workspace,
      [&](std::int64_t row, std::int64_t, Scratch&) { return dw + row * shape.c; },
      [](std::int64_t, std::int64_t, const float*) {});
}

template <class T>
void dense_wgrad_sgd(const DenseShape& shape, Precision precision, const T* x, const T* dy,
                     const SgdRule& rule, float* w, float* velocity, float* db, Workspace workspace,
                     Stream) {
  bias_gradient(shape, dy, db);
  UpdateFactors by{};
  if (!update_factors(rule, &by)) return;
  Diverged diverged;
  if constexpr (std::is_same_v<T, Bfloat16>) {
    if (amx_dense_wgrad_suits(shape, precision)) {
      amx_dense_wgrad("dense_wgrad_sgd", shape, x, dy, workspace, [&](const GradientBlock& block) {
        for (int i = 0; i < block.rows; ++i) {
          const std::int64_t at = std::int64_t{block.row + i} * shape.c + block.column;
          if (!update_chunk(block.columns, by, block.at(i), velocity + at, w + at)) {
            diverged.note(rule.number);
          }
        }
      });
      return diverged.write_to(rule.state);
    }
  }
  for_each_slab(
      "dense_wgrad_sgd", shape, precision, x, dy, workspace,
      [&](std::int64_t, std::int64_t rows, Scratch& scratch) {
        return static_cast<float*>(scratch.take(static_cast<std::size_t>(4 * rows * shape.c)));
      },
      [&](std::int64_t row, std::int64_t rows, const float* dw) {
        float *const first_w = w + row * shape.c, *const first_v = velocity + row * shape.c;
        parallel_chunks(rows * shape.c, kChunk, [&](std::int64_t begin, std::int64_t size) {
          if (!update_chunk(size, by, dw + begin, first_v + begin, first_w + begin)) {
            diverged.note(rule.number);
          }
        });
      });
  diverged.write_to(rule.state);
}

CONVNET_FOR_BOTH_TYPES(dense_wgrad);
CONVNET_FOR_BOTH_TYPES(dense_wgrad_sgd);

}  // namespace convnet
