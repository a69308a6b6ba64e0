// Fully connected layers on the host, forward and the gradient of x: matrix products by oneDNN. The
// gradient of w is in dense_wgrad.cpp.
//
//   fprop  y  = x w^T + b       x [N, C], w [K, C], y [N, K]
//   dgrad  dx = dy w
//
// All matrices are used as they lie, so nothing is reordered. Both are oneDNN's matmul: forward, on
// the transposed view of w, it is twice as fast as its inner product on w as it lies (4096 x 9216,
// batch 128), except for a few rows, where that reads w once and wins. In lower precision
// (reduced.h) there is matmul only, for w as it lies.
#include "dense_wgrad.h"
#include "onednn.h"
#include "reduced.h"

namespace convnet {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

struct DensePlan {
  dnnl::primitive product;
  memory::desc from, w, b, to, scratchpad;  // to = from * w + b
  std::string implementation;               // oneDNN's name of it
};

constexpr int kFewRows = 3;

bool by_inner_product(const DenseShape& s, Pass pass) {
  return pass == Pass::kFprop && s.n <= kFewRows;
}

std::shared_ptr<const DensePlan> make_matmul_plan(const DenseShape& s, Pass pass, Math math,
                                                  bool bias, bool relu) {
  const auto f32 = memory::data_type::f32;
  const bool forward = pass == Pass::kFprop;
  const memory::dim in = forward ? s.c : s.k, out = forward ? s.k : s.c;
  auto plan = std::make_shared<DensePlan>();
  plan->from = memory::desc({s.n, in}, f32, Tag::ab);
  plan->w = memory::desc({in, out}, f32, forward ? Tag::ba : Tag::ab);
  plan->b = memory::desc({1, out}, f32, Tag::ab);
  plan->to = memory::desc({s.n, out}, f32, Tag::ab);
  const dnnl::matmul::primitive_desc product(cpu_engine(), plan->from, plan->w,
                                             bias ? plan->b : memory::desc(), plan->to,
                                             user_scratchpad(math, relu));
  plan->product = dnnl::matmul(product);
  plan->scratchpad = product.scratchpad_desc();
  plan->implementation = product.impl_info_str();
  return plan;
}

std::shared_ptr<const DensePlan> make_inner_product_plan(const DenseShape& s, Math math, bool bias,
                                                         bool relu) {
  const auto f32 = memory::data_type::f32;
  auto plan = std::make_shared<DensePlan>();
  plan->from = memory::desc({s.n, s.c}, f32, Tag::nc);
  plan->w = memory::desc({s.k, s.c}, f32, Tag::oi);
  plan->b = memory::desc({s.k}, f32, Tag::x);
  plan->to = memory::desc({s.n, s.k}, f32, Tag::nc);
  const dnnl::inner_product_forward::primitive_desc product(
      cpu_engine(), dnnl::prop_kind::forward_training, plan->from, plan->w,
      bias ? plan->b : memory::desc(), plan->to, user_scratchpad(math, relu));
  plan->product = dnnl::inner_product_forward(product);
  plan->scratchpad = product.scratchpad_desc();
  plan->implementation = product.impl_info_str();
  return plan;
}

std::shared_ptr<const DensePlan> dense_plan(const DenseShape& s, Pass pass, Math math, bool bias,
                                            bool relu) {
  static PlanCache<DensePlan> cache;
  return cache.get({static_cast<int>(pass), static_cast<int>(math), bias, relu, s.n, s.c, s.k},
                   [&] {
                     return by_inner_product(s, pass) ? make_inner_product_plan(s, math, bias, relu)
                                                      : make_matmul_plan(s, pass, math, bias, relu);
                   });
}

// The plans that a pass may be asked for; oneDNN may choose differently with a bias and a ReLU.
std::vector<std::shared_ptr<const DensePlan>> dense_plans(const DenseShape& s, Pass pass,
                                                          Math math) {
  std::vector<std::shared_ptr<const DensePlan>> plans = {dense_plan(s, pass, math, false, false)};
  if (pass == Pass::kDgrad) return plans;
  plans.push_back(dense_plan(s, pass, math, false, true));
  plans.push_back(dense_plan(s, pass, math, true, false));
  plans.push_back(dense_plan(s, pass, math, true, true));
  return plans;
}

// What fprop and dgrad compute in, where `math` is allowed.
Math taken(const DenseShape& s, Pass pass, Math math) {
  if (math == Math::kFfma) return math;
  const bool forward = pass == Pass::kFprop;
  const int in = forward ? s.c : s.k, out = forward ? s.k : s.c;
  if (!may_reduce(math) || !reduction_pays(s.n, out, in)) return Math::kFp32;
  const auto plans = dense_plans(s, pass, math);
  const bool reduced = std::all_of(plans.begin(), plans.end(), [](const auto& plan) {
    return is_reduced(plan->implementation);
  });
  return reduced ? math : Math::kFp32;
}

void multiply(const DensePlan& plan, const char* op, const float* from, const float* w,
              const float* b, float* to, Workspace workspace) {
  Scratch scratch(op, workspace);
  std::unordered_map<int, memory> args{
      {DNNL_ARG_SRC, memory_at(plan.from, from)},
      {DNNL_ARG_WEIGHTS, memory_at(plan.w, w)},
      {DNNL_ARG_DST, memory_at(plan.to, to)},
      {DNNL_ARG_SCRATCHPAD, memory_at(plan.scratchpad, scratch.take(plan.scratchpad.get_size()))}};
  if (b != nullptr) args.emplace(DNNL_ARG_BIAS, memory_at(plan.b, b));
  plan.product.execute(cpu_stream(), args);
  cpu_stream().wait();
}

}  // namespace

std::string dense_kernel(const DenseShape& shape, Pass pass, Math math) {
  if (by_inner_product(shape, pass)) return kernel_name("inner product", taken(shape, pass, math));
  return kernel_name(
      "matmul", pass == Pass::kWgrad ? dense_wgrad_math(shape, math) : taken(shape, pass, math));
}

std::int64_t dense_workspace(const DenseShape& shape, Pass pass, Math math) {
  if (pass == Pass::kWgrad) return dense_wgrad_workspace(shape, math);
  std::int64_t bytes = 0;
  for (const auto& plan : dense_plans(shape, pass, taken(shape, pass, math))) {
    bytes = std::max(bytes, Scratch::padded(plan->scratchpad.get_size()));
  }
  return bytes;
}

void dense_fprop(const DenseShape& shape, Math math, const float* x, const float* w, const float* b,
                 bool relu, float* y, Workspace workspace, Stream) {
  const Math by = taken(shape, Pass::kFprop, math);
  const auto plan = dense_plan(shape, Pass::kFprop, by, b != nullptr, relu);
  multiply(*plan, "dense_fprop", x, w, b, y, workspace);
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
  const auto plan = dense_plan(shape, Pass::kDgrad, by, false, false);
  multiply(*plan, "dense_dgrad", dy, w, nullptr, dx, workspace);
  apply_relu_mask(static_cast<std::int64_t>(shape.n) * shape.c, relu_mask, dx);
}

}  // namespace convnet
