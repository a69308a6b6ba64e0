// Fully connected layers on the host, forward and the gradient of x: matrix products by oneDNN. The
// gradient of w is in dense_wgrad.cpp.
//
//   fprop  y  = x w^T + b       x [N, C], w [K, C], y [N, K]
//   dgrad  dx = dy w
//
// All matrices are used as they lie, so nothing is reordered. Both are oneDNN's matmul: forward, on
// the transposed view of w, it is twice as fast as its inner product on w as it lies (4096 x 9216,
// batch 128), except for a few rows, where that reads w once and wins, if oneDNN has it (below
// AVX-512 for a single row only; its reference takes a hundred times as long). In lower precision
// (reduced.h) there is matmul only, for w as it lies.
//
// Of bfloat16 arrays a product in bfloat16 takes x as it lies and w rounded in scratch memory, some
// outputs after others, so that the rounded part of w stays in the caches; one in float32 takes x widened
// there, and y is rounded when it is done.
#include "dense_wgrad.h"
#include "elements.h"
#include "product.h"
#include "reduced.h"
#include "widened.h"

namespace convnet {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

constexpr int kFewRows = 3;

memory::data_type type_of(Storage storage) {
  return storage == Storage::kBfloat16 ? memory::data_type::bf16 : memory::data_type::f32;
}

int inputs(const DenseShape& s, Pass pass) { return pass == Pass::kFprop ? s.c : s.k; }
int outputs(const DenseShape& s, Pass pass) { return pass == Pass::kFprop ? s.k : s.c; }

// to = from * w + b, all but b of the type of the shape; `out` of the outputs, with their part of w.
Product make_product(const DenseShape& s, Pass pass, Precision precision, bool bias, bool relu,
                     int out) {
  const auto f32 = memory::data_type::f32;
  const bool forward = pass == Pass::kFprop;
  const memory::dim in = inputs(s, pass);
  const auto type = type_of(s.storage);
  const memory::desc from({s.n, in}, type, Tag::ab), none;
  const memory::desc to({s.n, out}, type, memory::dims{outputs(s, pass), 1});
  const auto attr = user_scratchpad(precision, relu);
  if (forward && s.n <= kFewRows && type == f32) {
    const memory::desc b({out}, f32, Tag::x), w({out, in}, f32, Tag::ab);
    const Product product = Product::inner_product(from, w, bias ? b : none, to, attr);
    if (product.implementation().find("ref") == std::string::npos) return product;
  }
  const memory::desc b({1, out}, f32, Tag::ab);
  const memory::desc w({in, out}, type, forward ? Tag::ba : Tag::ab);
  return Product::matmul(from, w, bias ? b : none, to, attr);
}

std::shared_ptr<const Product> dense_product(const DenseShape& s, Pass pass, Precision precision,
                                             bool bias, bool relu, int out) {
  static PlanCache<Product> cache;
  return cache.get(
      {static_cast<int>(pass), static_cast<int>(precision), static_cast<int>(s.storage), bias, relu,
       s.n, s.c, s.k, out},
      [&] { return std::make_shared<Product>(make_product(s, pass, precision, bias, relu, out)); });
}

// The shape of the product that oneDNN is asked about: where tests pretend that it has one of
// bfloat16 arrays, that of float32 stands for it.
DenseShape known_to_onednn(const DenseShape& s) { return takes_bfloat16() ? s : in_float32(s); }

// Outputs that are formed at once: all, but where w is rounded for them, which is done in two megabytes.
int outputs_at_once(const DenseShape& s, Pass pass, bool rounds) {
  constexpr std::int64_t kNumbers = 1 << 20, kStep = 64;
  const int out = outputs(s, pass);
  if (!rounds) return out;
  const std::int64_t parts = ceil_div(std::int64_t{s.c} * s.k, kNumbers);
  const std::int64_t each = ceil_div(ceil_div(out, parts), kStep) * kStep;
  return static_cast<int>(std::min<std::int64_t>(out, each));
}

// The products that a pass may be asked for; oneDNN may choose differently with a bias and a ReLU.
std::vector<std::shared_ptr<const Product>> dense_products(const DenseShape& s, Pass pass,
                                                           Precision precision, bool rounds) {
  std::vector<std::shared_ptr<const Product>> products;
  const int most = outputs_at_once(s, pass, rounds), last = (outputs(s, pass) - 1) % most + 1;
  for (const int out : {most, last}) {
    for (const bool bias : {false, true}) {
      for (const bool relu : {false, true}) {
        if (pass == Pass::kDgrad && (bias || relu)) continue;
        products.push_back(dense_product(s, pass, precision, bias, relu, out));
      }
    }
  }
  return products;
}

// What fprop and dgrad compute in, where `precision` is allowed.
Precision taken(const DenseShape& s, Pass pass, Precision precision) {
  if (precision == Precision::kFfma) return precision;
  const bool half = s.storage == Storage::kBfloat16;
  if (half && precision != Precision::kBf16) return taken(in_float32(s), pass, precision);
  if (!may_reduce(precision, s.storage)) return Precision::kFp32;
  if (!reduction_pays(s.n, outputs(s, pass), inputs(s, pass), s.storage)) return Precision::kFp32;
  const auto products = dense_products(known_to_onednn(s), pass, precision, half);
  const bool reduced = std::all_of(products.begin(), products.end(), [&](const auto& product) {
    return is_reduced(product->implementation(), s.storage);
  });
  return reduced ? precision : Precision::kFp32;
}

// Whether a product of bfloat16 arrays is one of oneDNN's.
bool is_stored(const DenseShape& s, Precision by) {
  return s.storage == Storage::kBfloat16 && by == Precision::kBf16 && takes_bfloat16();
}

CONVNET_INLINE void round_rows(const float* from, std::int64_t rows, std::int64_t columns,
                               std::int64_t pitch, Bfloat16* to) {
  for (std::int64_t i = 0; i < rows; ++i, from += pitch, to += columns) {
    CONVNET_SIMD
    for (std::int64_t j = 0; j < columns; ++j) to[j].bits = rounded(from[j]).bits;
  }
}

// The part of w [K, C] that outputs [first, first + count) are formed by: rows forward, else columns.
void round_part(const DenseShape& s, Pass pass, const float* w, int first, int count,
                Bfloat16* to) {
  const bool forward = pass == Pass::kFprop;
  const std::int64_t rows = forward ? count : s.k, columns = forward ? s.c : count;
  const float* from = w + (forward ? std::int64_t{first} * s.c : first);
  parallel_chunks(rows, ceil_div(kChunk, columns), [&](std::int64_t begin, std::int64_t size) {
    vectorized<round_rows>(from + begin * s.c, size, columns, s.c, to + begin * columns);
  });
}

// to = from * w, + b where it is not null; the work of both passes.
void multiply(const char* op, const DenseShape& s, Pass pass, Precision by, const float* from,
              const float* w, const float* b, bool relu, float* to, Workspace workspace) {
  Scratch scratch(op, workspace);
  dense_product(s, pass, by, b != nullptr, relu, outputs(s, pass))->run(from, w, b, to, scratch);
}

void multiply(const char* op, const DenseShape& s, Pass pass, Precision by, const Bfloat16* from,
              const float* w, const float* b, bool relu, Bfloat16* to, Workspace workspace) {
  Scratch scratch(op, workspace);
  const std::int64_t in = inputs(s, pass), out = outputs(s, pass);
  if (!is_stored(s, by)) {
    const float* wide_from = widened(from, s.n * in, scratch);
    float* wide_to = scratch.take_array<float>(s.n * out);
    const DenseShape wide = in_float32(s);
    multiply(op, wide, pass, in_float32(by), wide_from, w, b, relu, wide_to, scratch.rest());
    return to_bfloat16(s.n * out, wide_to, to, nullptr);
  }
  const int most = outputs_at_once(s, pass, true);
  auto* const part = scratch.take_array<Bfloat16>(most * in);
  for (int first = 0; first < out; first += most) {
    const int count = std::min<int>(most, static_cast<int>(out) - first);
    round_part(s, pass, w, first, count, part);
    Scratch rest(op, scratch.rest());
    dense_product(s, pass, by, b != nullptr, relu, count)
        ->run(from, part, b == nullptr ? b : b + first, to + first, rest);
  }
}

}  // namespace

std::string dense_kernel(const DenseShape& shape, Pass pass, Precision precision) {
  if (pass == Pass::kWgrad) return dense_wgrad_kernel(shape, precision);
  const Precision by = taken(shape, pass, precision);
  if (is_stored(shape, by)) return kernel_name("matmul", by);
  const int out = outputs(shape, pass);
  return kernel_name(dense_product(in_float32(shape), pass, by, false, false, out)->name(), by);
}

std::int64_t dense_workspace(const DenseShape& shape, Pass pass, Precision precision) {
  if (pass == Pass::kWgrad) return dense_wgrad_workspace(shape, precision);
  const Precision by = taken(shape, pass, precision);
  const bool stored = is_stored(shape, by);
  const bool widens = shape.storage == Storage::kBfloat16 && !stored;
  std::int64_t bytes = 0;
  const auto products = widens ? dense_products(in_float32(shape), pass, in_float32(by), false)
                               : dense_products(shape, pass, by, stored);
  for (const auto& product : products) bytes = std::max(bytes, product->workspace());
  const std::int64_t in = inputs(shape, pass), out = outputs(shape, pass);
  if (stored) {
    const int most = outputs_at_once(shape, pass, true);
    return bytes + Scratch::array_bytes<Bfloat16>(most * in);
  }
  if (!widens) return bytes;
  return bytes + Scratch::array_bytes<float>(shape.n * in) +
         Scratch::array_bytes<float>(shape.n * out);
}

template <class T>
void dense_fprop(const DenseShape& shape, Precision precision, const T* x, const float* w,
                 const float* b, bool relu, T* y, Workspace workspace, Stream) {
  const Precision by = taken(shape, Pass::kFprop, precision);
  multiply("dense_fprop", shape, Pass::kFprop, by, x, w, b, relu, y, workspace);
}

template <class T>
void dense_fprop_dropout(const DenseShape& shape, Precision precision, const T* x, const float* w,
                         const float* b, bool relu, const DropoutRule& rule, T* y,
                         Workspace workspace, Stream stream) {
  // oneDNN's epilogues cannot draw; y is small beside w, and still in the caches.
  dense_fprop(shape, precision, x, w, b, relu, y, workspace, stream);
  dropout(rule.shape, rule.drop, rule.scale, rule.seed, rule.stream_id, rule.step, rule.state, y, y,
          stream);
}

template <class T>
void dense_dgrad(const DenseShape& shape, Precision precision, const T* dy, const float* w,
                 const T* relu_mask, T* dx, Workspace workspace, Stream) {
  const Precision by = taken(shape, Pass::kDgrad, precision);
  multiply("dense_dgrad", shape, Pass::kDgrad, by, dy, w, nullptr, false, dx, workspace);
  apply_relu_mask(static_cast<std::int64_t>(shape.n) * shape.c, relu_mask, dx);
}

CONVNET_FOR_BOTH_TYPES(dense_fprop);
CONVNET_FOR_BOTH_TYPES(dense_fprop_dropout);
CONVNET_FOR_BOTH_TYPES(dense_dgrad);

}  // namespace convnet
