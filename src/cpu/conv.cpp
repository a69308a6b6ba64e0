// Convolution on the host, in NHWC throughout: by Winograd's algorithm where that pays
// (winograd.cpp, space_to_depth.cpp), else directly by oneDNN, which may round operands where
// `math` allows it (reduced.h).
//
//   fprop  y  = x * w + b      (equations in ops.h)
//   dgrad  dx = dy * flipped w
//   wgrad  dw = x * dy,  db = sum of dy
//
// Activations are used as they lie. Filters are KRSC here and transformed or blocked for the
// product, so each call makes them anew in the workspace (K R S C / G numbers: little next to the
// convolution of a batch), unless they were prepared. `ceil` rounding needs no special case: the
// overhang is right padding, which oneDNN reads as zeros.
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
  dnnl::reorder reorder;  // given -> oneDNN's layout (fprop, dgrad) or back (wgrad)
  bool reordered = false;
  memory::desc x, y, w, b, scratchpad;
  memory::desc krsc, given;    // filters as they lie in a net, and as this plan is given them
  dnnl::reorder prepare;       // krsc -> given, of a plan for prepared filters
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

dnnl::convolution_forward::primitive_desc forward_desc(const ConvGeometry& g, Math math, bool bias,
                                                       bool relu) {
  return dnnl::convolution_forward::primitive_desc(
      cpu_engine(), dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct, g.x,
      g.w_any, bias ? g.b : memory::desc(), g.y, g.strides, g.pad_l, g.pad_r,
      user_scratchpad(math, relu));
}

// That of filters that are prepared: what oneDNN chooses for one thread, and with all that a layer
// has. Where it chooses otherwise for more threads the filters are reordered.
memory::desc prepared_layout(const ConvGeometry& g, Math math) {
  const OneThread alone;
  return forward_desc(g, math, true, true).weights_desc();
}

std::shared_ptr<const ConvPlan> make_plan(const ConvShape& s, Pass pass, Math math, bool bias,
                                          bool relu, bool prepared) {
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const ConvGeometry g = geometry(s);
  const memory::desc none, b = bias ? g.b : none;
  auto plan = std::make_shared<ConvPlan>();
  plan->x = g.x;
  plan->y = g.y;
  plan->krsc = g.krsc;
  plan->given = prepared ? prepared_layout(g, math) : g.krsc;
  plan->b = g.b;
  // The backward passes want the forward one as a hint.
  const auto forward = forward_desc(g, math, bias, relu && pass == Pass::kFprop);
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
  const auto reorder = [](const memory::desc& from, const memory::desc& to) {
    return dnnl::reorder(dnnl::reorder::primitive_desc(cpu_engine(), from, cpu_engine(), to));
  };
  plan->reordered = plan->w != plan->given;
  if (plan->reordered && pass == Pass::kWgrad) plan->reorder = reorder(plan->w, plan->given);
  if (plan->reordered && pass != Pass::kWgrad) plan->reorder = reorder(plan->given, plan->w);
  if (plan->given != plan->krsc) plan->prepare = reorder(plan->krsc, plan->given);
  return plan;
}

std::shared_ptr<const ConvPlan> conv_plan(const ConvShape& s, Pass pass, Math math, bool bias,
                                          bool relu, bool prepared = false) {
  static PlanCache<ConvPlan> cache;
  return cache.get(
      {static_cast<int>(pass), static_cast<int>(math), bias, relu, prepared, s.n, s.h, s.w, s.c,
       s.k, s.r, s.s, s.p, s.q, s.groups, s.stride_h, s.stride_w, s.pad_h, s.pad_w},
      [&] { return make_plan(s, pass, math, bias, relu, prepared); });
}

// The plans that a pass may be asked for; oneDNN may choose differently with a bias and a ReLU.
std::vector<std::shared_ptr<const ConvPlan>> conv_plans(const ConvShape& s, Pass pass, Math math,
                                                        bool prepared = false) {
  std::vector<std::shared_ptr<const ConvPlan>> plans;
  for (const bool bias : {false, true}) {
    for (const bool relu : {false, true}) {
      if ((bias && pass == Pass::kDgrad) || (relu && pass != Pass::kFprop)) continue;
      plans.push_back(conv_plan(s, pass, math, bias, relu, prepared));
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
memory reordered_filters(const ConvPlan& plan, const void* w, Scratch& scratch) {
  memory given = memory_at(plan.given, w);
  if (!plan.reordered) return given;
  memory blocked = memory_at(plan.w, scratch.take(plan.w.get_size()));
  plan.reorder.execute(cpu_stream(), given, blocked);
  return blocked;
}

std::int64_t direct_workspace(const ConvShape& shape, Pass pass, Math math, bool prepared) {
  std::int64_t bytes = 0;
  for (const auto& plan : conv_plans(shape, pass, math, prepared)) {
    bytes = std::max(bytes, (plan->reordered ? Scratch::padded(plan->w.get_size()) : 0) +
                                Scratch::padded(plan->scratchpad.get_size()));
  }
  return bytes;
}

void direct_fprop(const ConvPlan& plan, const float* x, const void* filters, const float* b,
                  float* y, Workspace workspace) {
  Scratch scratch("conv_fprop", workspace);
  std::unordered_map<int, memory> args{
      {DNNL_ARG_SRC, memory_at(plan.x, x)},
      {DNNL_ARG_WEIGHTS, reordered_filters(plan, filters, scratch)},
      {DNNL_ARG_DST, memory_at(plan.y, y)},
      {DNNL_ARG_SCRATCHPAD, memory_at(plan.scratchpad, scratch.take(plan.scratchpad.get_size()))}};
  if (b != nullptr) args.emplace(DNNL_ARG_BIAS, memory_at(plan.b, b));
  plan.conv.execute(cpu_stream(), args);
  cpu_stream().wait();
}

// A direct convolution of prepared filters.
std::shared_ptr<const ConvPlan> prepared_plan(const ConvShape& shape, Math math, bool bias = true,
                                              bool relu = true) {
  return conv_plan(shape, Pass::kFprop, math, bias, relu, true);
}

// Where it is not direct.
FpropBytes fprop_bytes(const ConvShape& shape, Algorithm algorithm) {
  return algorithm == Algorithm::kWinograd ? winograd_fprop_bytes(shape)
                                           : space_to_depth_fprop_bytes(shape);
}

// Of prepared filters.
std::int64_t prepared_bytes(const ConvShape& shape, const Method& method) {
  if (method.algorithm != Algorithm::kDirect) return fprop_bytes(shape, method.algorithm).filters;
  const auto plan = prepared_plan(shape, method.math);
  const bool same = plan->given == plan->krsc;
  return same ? 0 : static_cast<std::int64_t>(plan->given.get_size());
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
  if (method.algorithm == Algorithm::kDirect) {
    return direct_workspace(shape, pass, method.math, false);
  }
  if (pass == Pass::kFprop) return fprop_bytes(shape, method.algorithm).together();
  return method.algorithm == Algorithm::kWinograd ? winograd_workspace(shape, pass)
                                                  : space_to_depth_workspace(shape, pass);
}

std::int64_t conv_prepared_bytes(const ConvShape& shape, Math math) {
  return prepared_bytes(shape, method_for(shape, Pass::kFprop, math));
}

std::int64_t conv_prepared_workspace(const ConvShape& shape, Math math) {
  const Method method = method_for(shape, Pass::kFprop, math);
  return method.algorithm == Algorithm::kDirect
             ? direct_workspace(shape, Pass::kFprop, method.math, true)
             : fprop_bytes(shape, method.algorithm).multiply;
}

void conv_prepare(const ConvShape& shape, Math math, const float* w, Workspace prepared,
                  Workspace workspace, Stream) {
  const Method method = method_for(shape, Pass::kFprop, math);
  if (method.algorithm == Algorithm::kWinograd) {
    return winograd_prepare(shape, w, prepared, workspace);
  }
  if (method.algorithm == Algorithm::kSpaceToDepth) {
    return space_to_depth_prepare(shape, w, prepared, workspace);
  }
  const auto plan = prepared_plan(shape, method.math);
  memory krsc = memory_at(plan->krsc, w), given = memory_at(plan->given, prepared.data);
  plan->prepare.execute(cpu_stream(), krsc, given);
  cpu_stream().wait();
}

void conv_fprop_prepared(const ConvShape& shape, Math math, const float* x, Workspace prepared,
                         const float* b, bool relu, float* y, Workspace workspace, Stream) {
  const Method method = method_for(shape, Pass::kFprop, math);
  check_dims("conv_fprop_prepared", "prepared", {prepared.bytes}, {prepared_bytes(shape, method)});
  if (method.algorithm == Algorithm::kWinograd) {
    return winograd_fprop(shape, x, prepared, b, relu, y, workspace);
  }
  if (method.algorithm == Algorithm::kSpaceToDepth) {
    return space_to_depth_fprop(shape, x, prepared, b, relu, y, workspace);
  }
  const auto plan = prepared_plan(shape, method.math, b != nullptr, relu);
  direct_fprop(*plan, x, prepared.data, b, y, workspace);
}

void conv_fprop(const ConvShape& shape, Math math, const float* x, const float* w, const float* b,
                bool relu, float* y, Workspace workspace, Stream stream) {
  const Method method = method_for(shape, Pass::kFprop, math);
  if (method.algorithm == Algorithm::kDirect) {
    const auto plan = conv_plan(shape, Pass::kFprop, method.math, b != nullptr, relu);
    return direct_fprop(*plan, x, w, b, y, workspace);
  }
  Scratch scratch("conv_fprop", workspace);
  const std::int64_t bytes = prepared_bytes(shape, method);
  const Workspace prepared{scratch.take(bytes), bytes};
  conv_prepare(shape, math, w, prepared, scratch.rest(), stream);
  conv_fprop_prepared(shape, math, x, prepared, b, relu, y, scratch.rest(), stream);
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
