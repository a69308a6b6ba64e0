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
#include "dense_wgrad.h"
#include "product.h"
#include "reduced.h"

namespace convnet {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

constexpr int kFewRows = 3;

// to = from * w + b
Product make_product(const DenseShape& s, Pass pass, Math math, bool bias, bool relu) {
  const auto f32 = memory::data_type::f32;
  const bool forward = pass == Pass::kFprop;
  const memory::dim in = forward ? s.c : s.k, out = forward ? s.k : s.c;
  const memory::desc from({s.n, in}, f32, Tag::ab), to({s.n, out}, f32, Tag::ab), none;
  const auto attr = user_scratchpad(math, relu);
  if (forward && s.n <= kFewRows) {
    const memory::desc b({out}, f32, Tag::x), w({out, in}, f32, Tag::ab);
    const Product product = Product::inner_product(from, w, bias ? b : none, to, attr);
    if (product.implementation().find("ref") == std::string::npos) return product;
  }
  const memory::desc b({1, out}, f32, Tag::ab);
  const memory::desc w({in, out}, f32, forward ? Tag::ba : Tag::ab);
  return Product::matmul(from, w, bias ? b : none, to, attr);
}

std::shared_ptr<const Product> dense_product(const DenseShape& s, Pass pass, Math math, bool bias,
                                             bool relu) {
  static PlanCache<Product> cache;
  return cache.get(
      {static_cast<int>(pass), static_cast<int>(math), bias, relu, s.n, s.c, s.k},
      [&] { return std::make_shared<Product>(make_product(s, pass, math, bias, relu)); });
}

// The products that a pass may be asked for; oneDNN may choose differently with a bias and a ReLU.
std::vector<std::shared_ptr<const Product>> dense_products(const DenseShape& s, Pass pass,
                                                           Math math) {
  std::vector<std::shared_ptr<const Product>> products = {
      dense_product(s, pass, math, false, false)};
  if (pass == Pass::kDgrad) return products;
  products.push_back(dense_product(s, pass, math, false, true));
  products.push_back(dense_product(s, pass, math, true, false));
  products.push_back(dense_product(s, pass, math, true, true));
  return products;
}

// What fprop and dgrad compute in, where `math` is allowed.
Math taken(const DenseShape& s, Pass pass, Math math) {
  if (math == Math::kFfma) return math;
  const bool forward = pass == Pass::kFprop;
  const int in = forward ? s.c : s.k, out = forward ? s.k : s.c;
  if (!may_reduce(math) || !reduction_pays(s.n, out, in)) return Math::kFp32;
  const auto products = dense_products(s, pass, math);
  const bool reduced = std::all_of(products.begin(), products.end(), [](const auto& product) {
    return is_reduced(product->implementation());
  });
  return reduced ? math : Math::kFp32;
}

}  // namespace

std::string dense_kernel(const DenseShape& shape, Pass pass, Math math) {
  if (pass == Pass::kWgrad) return kernel_name("matmul", dense_wgrad_math(shape, math));
  const Math by = taken(shape, pass, math);
  return kernel_name(dense_product(shape, pass, by, false, false)->name(), by);
}

std::int64_t dense_workspace(const DenseShape& shape, Pass pass, Math math) {
  if (pass == Pass::kWgrad) return dense_wgrad_workspace(shape, math);
  std::int64_t bytes = 0;
  for (const auto& product : dense_products(shape, pass, taken(shape, pass, math))) {
    bytes = std::max(bytes, product->workspace());
  }
  return bytes;
}

void dense_fprop(const DenseShape& shape, Math math, const float* x, const float* w, const float* b,
                 bool relu, float* y, Workspace workspace, Stream) {
  const Math by = taken(shape, Pass::kFprop, math);
  Scratch scratch("dense_fprop", workspace);
  dense_product(shape, Pass::kFprop, by, b != nullptr, relu)->run(x, w, b, y, scratch);
}

void dense_fprop_dropout(const DenseShape& shape, Math math, const float* x, const float* w,
                         const float* b, bool relu, const DropoutRule& rule, float* y,
                         Workspace workspace, Stream stream) {
  // oneDNN's epilogues cannot draw; y is small beside w, and still in the caches.
  dense_fprop(shape, math, x, w, b, relu, y, workspace, stream);
  dropout(rule.shape, rule.drop, rule.scale, rule.seed, rule.stream_id, rule.step, rule.state, y, y,
          stream);
}

void dense_dgrad(const DenseShape& shape, Math math, const float* dy, const float* w,
                 const float* relu_mask, float* dx, Workspace workspace, Stream) {
  const Math by = taken(shape, Pass::kDgrad, math);
  Scratch scratch("dense_dgrad", workspace);
  dense_product(shape, Pass::kDgrad, by, false, false)->run(dy, w, nullptr, dx, scratch);
  apply_relu_mask(static_cast<std::int64_t>(shape.n) * shape.c, relu_mask, dx);
}

}  // namespace convnet
