// Convolution on the host, in NHWC throughout: by Winograd's algorithm where that pays
// (winograd.cpp, space_to_depth.cpp), else directly by oneDNN, which may round operands where
// `math` allows it (reduced.h).
//
//   fprop  y  = x * w + b      (equations in ops.h)
//   dgrad  dx = dy * flipped w
//   wgrad  dw = x * dy,  db = sum of dy
//
// Activations are used as they lie. Filters are KRSC here and blocked inside oneDNN, so each call
// reorders them (K R S C / G numbers: little next to the convolution) into the workspace. `ceil`
// rounding needs no special case: the overhang is right padding, which oneDNN reads as zeros.
#include "onednn.h"
#include "reduced.h"
#include "space_to_depth.h"
#include "winograd.h"

namespace convnet {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

struct ConvPlan {
  dnnl::primitive conv;
  dnnl::reorder reorder;  // KRSC -> oneDNN's layout (fprop, dgrad) or back (wgrad)
  bool reordered = false;
  memory::desc x, y, krsc, w, b, scratchpad;
  std::string implementation;  // oneDNN's name of it
};

struct ConvGeometry {
  memory::dims strides, pad_l, pad_r;
  memory::desc x, y, krsc, w_any, b;
};

ConvGeometry geometry(const ConvShape& s) {
  ConvGeometry g;
  const auto f32 = memory::data_type::f32;
  g.strides = {s.stride_h, s.stride_w};
  g.pad_l = {s.pad_h, s.pad_w};
  // What the last window needs beyond the image. Negative where floor rounding leaves rows unread.
  g.pad_r = {(s.p - 1) * s.stride_h + s.r - s.h - s.pad_h,
             (s.q - 1) * s.stride_w + s.s - s.w - s.pad_w};
  g.x = memory::desc({s.n, s.c, s.h, s.w}, f32, Tag::nhwc);
  g.y = memory::desc({s.n, s.k, s.p, s.q}, f32, Tag::nhwc);
  g.b = memory::desc({s.k}, f32, Tag::x);
  const memory::dim c = s.c / s.groups, k = s.k / s.groups, filter = c * s.r * s.s;
  if (s.groups == 1) {
    g.krsc = memory::desc({k, c, s.r, s.s}, f32, memory::dims{filter, 1, s.s * c, c});
    g.w_any = memory::desc({k, c, s.r, s.s}, f32, Tag::any);
  } else {
    g.krsc = memory::desc({s.groups, k, c, s.r, s.s}, f32,
                          memory::dims{k * filter, filter, 1, s.s * c, c});
    g.w_any = memory::desc({s.groups, k, c, s.r, s.s}, f32, Tag::any);
  }
  return g;
}

std::shared_ptr<const ConvPlan> make_plan(const ConvShape& s, Pass pass, Math math, bool bias,
                                          bool relu) {
  using dnnl::prop_kind;
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const ConvGeometry g = geometry(s);
  const memory::desc none, b = bias ? g.b : none;
  auto plan = std::make_shared<ConvPlan>();
  plan->x = g.x;
  plan->y = g.y;
  plan->krsc = g.krsc;
  plan->b = g.b;
  // The backward passes want the forward one as a hint.
  const dnnl::convolution_forward::primitive_desc forward(
      cpu_engine(), prop_kind::forward_training, algorithm, g.x, g.w_any, b, g.y, g.strides,
      g.pad_l, g.pad_r, user_scratchpad(math, relu && pass == Pass::kFprop));
  if (pass == Pass::kFprop) {
    plan->conv = dnnl::convolution_forward(forward);
    plan->w = forward.weights_desc();
    plan->scratchpad = forward.scratchpad_desc();
    plan->implementation = forward.impl_info_str();
  } else if (pass == Pass::kDgrad) {
    const dnnl::convolution_backward_data::primitive_desc backward(
        cpu_engine(), algorithm, g.x, g.w_any, g.y, g.strides, g.pad_l, g.pad_r, forward,
        user_scratchpad(math));
    plan->conv = dnnl::convolution_backward_data(backward);
    plan->w = backward.weights_desc();
    plan->scratchpad = backward.scratchpad_desc();
    plan->implementation = backward.impl_info_str();
  } else {
    const dnnl::convolution_backward_weights::primitive_desc backward(
        cpu_engine(), algorithm, g.x, g.w_any, b, g.y, g.strides, g.pad_l, g.pad_r, forward,
        user_scratchpad(math));
    plan->conv = dnnl::convolution_backward_weights(backward);
    plan->w = backward.diff_weights_desc();
    plan->scratchpad = backward.scratchpad_desc();
    plan->implementation = backward.impl_info_str();
  }
  plan->reordered = plan->w != plan->krsc;
  if (plan->reordered) {
    const bool back = pass == Pass::kWgrad;
    plan->reorder = dnnl::reorder(dnnl::reorder::primitive_desc(
        cpu_engine(), back ? plan->w : plan->krsc, cpu_engine(), back ? plan->krsc : plan->w));
  }
  return plan;
}

std::shared_ptr<const ConvPlan> conv_plan(const ConvShape& s, Pass pass, Math math, bool bias,
                                          bool relu) {
  static PlanCache<ConvPlan> cache;
  return cache.get({static_cast<int>(pass), static_cast<int>(math), bias, relu, s.n, s.h, s.w, s.c,
                    s.k, s.r, s.s, s.p, s.q, s.groups, s.stride_h, s.stride_w, s.pad_h, s.pad_w},
                   [&] { return make_plan(s, pass, math, bias, relu); });
}

// The plans that a pass may be asked for; oneDNN may choose differently with a bias and a ReLU.
std::vector<std::shared_ptr<const ConvPlan>> conv_plans(const ConvShape& s, Pass pass, Math math) {
  std::vector<std::shared_ptr<const ConvPlan>> plans;
  for (const bool bias : {false, true}) {
    for (const bool relu : {false, true}) {
      if ((bias && pass == Pass::kDgrad) || (relu && pass != Pass::kFprop)) continue;
      plans.push_back(conv_plan(s, pass, math, bias, relu));
    }
  }
  return plans;
}

// Whether oneDNN's direct convolution computes in `math`, a lower precision.
bool direct_is_reduced(const ConvShape& s, Pass pass, Math math) {
  if (!may_reduce(math)) return false;
  const auto plans = conv_plans(s, pass, math);
  return std::all_of(plans.begin(), plans.end(),
                     [](const auto& plan) { return is_reduced(plan->implementation); });
}

enum class Algorithm { kDirect, kWinograd, kSpaceToDepth };

struct Method {
  Algorithm algorithm;
  Math math;  // of a direct convolution
};

// kFfma asks for plain sums.
Method method_for(const ConvShape& shape, Pass pass, Math math) {
  if (math == Math::kFfma) return {Algorithm::kDirect, math};
  const bool reduced = direct_is_reduced(shape, pass, math);
  const Math taken = reduced ? math : Math::kFp32;
  const double direct = direct_cost(shape) / (reduced ? kConvLead : 1);
  if (winograd_suits(shape, pass, direct)) return {Algorithm::kWinograd, Math::kFp32};
  if (space_to_depth_suits(shape, pass, direct)) return {Algorithm::kSpaceToDepth, Math::kFp32};
  return {Algorithm::kDirect, taken};
}

// The filters in the layout the primitive wants.
memory reordered_filters(const ConvPlan& plan, const float* w, Scratch& scratch) {
  memory krsc = memory_at(plan.krsc, w);
  if (!plan.reordered) return krsc;
  memory blocked = memory_at(plan.w, scratch.take(plan.w.get_size()));
  plan.reorder.execute(cpu_stream(), krsc, blocked);
  return blocked;
}

}  // namespace

std::string conv_kernel(const ConvShape& shape, Pass pass, Math math) {
  const Method method = method_for(shape, pass, math);
  if (method.algorithm == Algorithm::kWinograd) return winograd_name(shape, pass);
  if (method.algorithm == Algorithm::kSpaceToDepth) return "space to depth";
  return kernel_name("direct", method.math);
}

std::int64_t conv_workspace(const ConvShape& shape, Pass pass, Math math) {
  const Method method = method_for(shape, pass, math);
  if (method.algorithm == Algorithm::kWinograd) return winograd_workspace(shape, pass);
  if (method.algorithm == Algorithm::kSpaceToDepth) return space_to_depth_workspace(shape, pass);
  std::int64_t bytes = 0;
  for (const auto& plan : conv_plans(shape, pass, method.math)) {
    bytes = std::max(bytes, (plan->reordered ? Scratch::padded(plan->w.get_size()) : 0) +
                                Scratch::padded(plan->scratchpad.get_size()));
  }
  return bytes;
}

void conv_fprop(const ConvShape& shape, Math math, const float* x, const float* w, const float* b,
                bool relu, float* y, Workspace workspace, Stream) {
  const Method method = method_for(shape, Pass::kFprop, math);
  if (method.algorithm == Algorithm::kWinograd) {
    return winograd_fprop(shape, x, w, b, relu, y, workspace);
  }
  if (method.algorithm == Algorithm::kSpaceToDepth) {
    return space_to_depth_fprop(shape, x, w, b, relu, y, workspace);
  }
  const auto plan = conv_plan(shape, Pass::kFprop, method.math, b != nullptr, relu);
  Scratch scratch("conv_fprop", workspace);
  std::unordered_map<int, memory> args{
      {DNNL_ARG_SRC, memory_at(plan->x, x)},
      {DNNL_ARG_WEIGHTS, reordered_filters(*plan, w, scratch)},
      {DNNL_ARG_DST, memory_at(plan->y, y)},
      {DNNL_ARG_SCRATCHPAD,
       memory_at(plan->scratchpad, scratch.take(plan->scratchpad.get_size()))}};
  if (b != nullptr) args.emplace(DNNL_ARG_BIAS, memory_at(plan->b, b));
  plan->conv.execute(cpu_stream(), args);
  cpu_stream().wait();
}

void conv_dgrad(const ConvShape& shape, Math math, const float* dy, const float* w,
                const float* relu_mask, float* dx, Workspace workspace, Stream) {
  const Method method = method_for(shape, Pass::kDgrad, math);
  if (method.algorithm == Algorithm::kWinograd) {
    return winograd_dgrad(shape, dy, w, relu_mask, dx, workspace);
  }
  if (method.algorithm == Algorithm::kSpaceToDepth) {
    return space_to_depth_dgrad(shape, dy, w, relu_mask, dx, workspace);
  }
  const auto plan = conv_plan(shape, Pass::kDgrad, method.math, false, false);
  Scratch scratch("conv_dgrad", workspace);
  plan->conv.execute(cpu_stream(),
                     {{DNNL_ARG_DIFF_DST, memory_at(plan->y, dy)},
                      {DNNL_ARG_WEIGHTS, reordered_filters(*plan, w, scratch)},
                      {DNNL_ARG_DIFF_SRC, memory_at(plan->x, dx)},
                      {DNNL_ARG_SCRATCHPAD,
                       memory_at(plan->scratchpad, scratch.take(plan->scratchpad.get_size()))}});
  cpu_stream().wait();
  apply_relu_mask(count(x_dims(shape)), relu_mask, dx);
}

void conv_wgrad(const ConvShape& shape, Math math, const float* x, const float* dy, float* dw,
                float* db, Workspace workspace, Stream) {
  const Method method = method_for(shape, Pass::kWgrad, math);
  if (method.algorithm == Algorithm::kWinograd) {
    return winograd_wgrad(shape, x, dy, dw, db, workspace);
  }
  if (method.algorithm == Algorithm::kSpaceToDepth) {
    return space_to_depth_wgrad(shape, x, dy, dw, db, workspace);
  }
  const auto plan = conv_plan(shape, Pass::kWgrad, method.math, db != nullptr, false);
  Scratch scratch("conv_wgrad", workspace);
  const memory krsc = memory_at(plan->krsc, dw);
  memory blocked = plan->reordered ? memory_at(plan->w, scratch.take(plan->w.get_size())) : krsc;
  std::unordered_map<int, memory> args{
      {DNNL_ARG_SRC, memory_at(plan->x, x)},
      {DNNL_ARG_DIFF_DST, memory_at(plan->y, dy)},
      {DNNL_ARG_DIFF_WEIGHTS, blocked},
      {DNNL_ARG_SCRATCHPAD,
       memory_at(plan->scratchpad, scratch.take(plan->scratchpad.get_size()))}};
  if (db != nullptr) args.emplace(DNNL_ARG_DIFF_BIAS, memory_at(plan->b, db));
  plan->conv.execute(cpu_stream(), args);
  if (plan->reordered) {
    memory out = krsc;
    plan->reorder.execute(cpu_stream(), blocked, out);
  }
  cpu_stream().wait();
}

}  // namespace convnet
