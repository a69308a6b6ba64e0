// What oneDNN prepares for a pass, once for each shape, and how it is run. Filters are KRSC here and
// blocked for the product, so each call makes them anew in the workspace (K R S C / G numbers: little
// next to the convolution of a batch), unless they were prepared. `ceil` rounding needs no special
// case: the overhang is right padding, which oneDNN reads as zeros.
#include "direct.h"

#include "elements.h"
#include "reduced.h"
#include "widened.h"

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
  memory::desc dw_any;  // float32 always
};

ConvGeometry geometry(const ConvShape& s) {
  ConvGeometry g;
  const auto f32 = memory::data_type::f32;
  const auto type = s.storage == Storage::kBfloat16 ? memory::data_type::bf16 : f32;
  g.strides = {s.stride_h, s.stride_w};
  g.pad_l = {s.pad_h, s.pad_w};
  // What the last window needs beyond the image. Negative where floor rounding leaves rows unread.
  g.pad_r = {(s.p - 1) * s.stride_h + s.r - s.h - s.pad_h,
             (s.q - 1) * s.stride_w + s.s - s.w - s.pad_w};
  g.x = memory::desc({s.n, s.c, s.h, s.w}, type, Tag::nhwc);
  g.y = memory::desc({s.n, s.k, s.p, s.q}, type, Tag::nhwc);
  g.b = memory::desc({s.k}, f32, Tag::x);
  const memory::dim c = s.c / s.groups, k = s.k / s.groups, filter = c * s.r * s.s;
  if (s.groups == 1) {
    g.krsc = memory::desc({k, c, s.r, s.s}, f32, memory::dims{filter, 1, s.s * c, c});
    g.dw_any = memory::desc({k, c, s.r, s.s}, f32, Tag::any);
    g.w_any = memory::desc({k, c, s.r, s.s}, type, Tag::any);
  } else {
    g.krsc = memory::desc({s.groups, k, c, s.r, s.s}, f32,
                          memory::dims{k * filter, filter, 1, s.s * c, c});
    g.dw_any = memory::desc({s.groups, k, c, s.r, s.s}, f32, Tag::any);
    g.w_any = memory::desc({s.groups, k, c, s.r, s.s}, type, Tag::any);
  }
  return g;
}

dnnl::convolution_forward::primitive_desc forward_desc(const ConvGeometry& g, Precision precision,
                                                       bool bias, bool relu) {
  return dnnl::convolution_forward::primitive_desc(
      cpu_engine(), dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct, g.x,
      g.w_any, bias ? g.b : memory::desc(), g.y, g.strides, g.pad_l, g.pad_r,
      user_scratchpad(precision, relu));
}

// That of filters that are prepared for a batch of `images`: what oneDNN chooses for one thread, and
// with all that a layer has. Where it chooses otherwise for more threads, or for the last few images
// of a batch, the filters are reordered.
memory::desc prepared_layout(ConvShape s, int images, Precision precision) {
  s.n = images;
  const OneThread alone;
  return forward_desc(geometry(s), precision, true, true).weights_desc();
}

// `prepared`: the batch that the filters were prepared for; 0: they are KRSC.
std::shared_ptr<const ConvPlan> make_plan(const ConvShape& s, Pass pass, Precision precision,
                                          bool bias, bool relu, int prepared) {
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const ConvGeometry g = geometry(s);
  const memory::desc none, b = bias ? g.b : none;
  auto plan = std::make_shared<ConvPlan>();
  plan->x = g.x;
  plan->y = g.y;
  plan->krsc = g.krsc;
  plan->given = prepared == 0 ? g.krsc : prepared_layout(s, prepared, precision);
  plan->b = g.b;
  // The backward passes want the forward one as a hint.
  const auto forward = forward_desc(g, precision, bias, relu && pass == Pass::kFprop);
  if (pass == Pass::kFprop) {
    plan->conv = dnnl::convolution_forward(forward);
    plan->w = forward.weights_desc();
    plan->scratchpad = forward.scratchpad_desc();
    plan->implementation = forward.impl_info_str();
  } else if (pass == Pass::kDgrad) {
    const dnnl::convolution_backward_data::primitive_desc backward(
        cpu_engine(), algorithm, g.x, g.w_any, g.y, g.strides, g.pad_l, g.pad_r, forward,
        user_scratchpad(precision));
    plan->conv = dnnl::convolution_backward_data(backward);
    plan->w = backward.weights_desc();
    plan->scratchpad = backward.scratchpad_desc();
    plan->implementation = backward.impl_info_str();
  } else {
    const dnnl::convolution_backward_weights::primitive_desc backward(
        cpu_engine(), algorithm, g.x, g.dw_any, b, g.y, g.strides, g.pad_l, g.pad_r, forward,
        user_scratchpad(precision));
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

std::shared_ptr<const ConvPlan> conv_plan(const ConvShape& s, Pass pass, Precision precision,
                                          bool bias, bool relu, int prepared = 0) {
  static PlanCache<ConvPlan> cache;
  return cache.get({static_cast<int>(pass),
                    static_cast<int>(precision),
                    static_cast<int>(s.storage),
                    bias,
                    relu,
                    prepared,
                    s.n,
                    s.h,
                    s.w,
                    s.c,
                    s.k,
                    s.r,
                    s.s,
                    s.p,
                    s.q,
                    s.groups,
                    s.stride_h,
                    s.stride_w,
                    s.pad_h,
                    s.pad_w},
                   [&] { return make_plan(s, pass, precision, bias, relu, prepared); });
}

// The plans that a pass may be asked for; oneDNN may choose differently with a bias and a ReLU.
std::vector<std::shared_ptr<const ConvPlan>> conv_plans(const ConvShape& s, Pass pass,
                                                        Precision precision, int prepared = 0) {
  std::vector<std::shared_ptr<const ConvPlan>> plans;
  for (const bool bias : {false, true}) {
    for (const bool relu : {false, true}) {
      if ((bias && pass == Pass::kDgrad) || (relu && pass != Pass::kFprop)) continue;
      plans.push_back(conv_plan(s, pass, precision, bias, relu, prepared));
    }
  }
  return plans;
}

// The filters in the layout the primitive wants.
memory reordered_filters(const ConvPlan& plan, const void* w, Scratch& scratch) {
  memory given = memory_at(plan.given, w);
  if (!plan.reordered) return given;
  memory blocked = memory_at(plan.w, scratch.take(plan.w.get_size()));
  plan.reorder.execute(cpu_stream(), given, blocked);
  return blocked;
}

// ---- bfloat16 arrays, in float32 ---------------------------------------------------------------

bool widens(const ConvShape& shape, Precision precision) {
  return shape.storage == Storage::kBfloat16 &&
         !(precision == Precision::kBf16 && takes_bfloat16());
}

// Images that are widened at once: in a few megabytes, for weight gradients in more, as those of
// the pieces are added up.
std::int64_t images_at_once(const ConvShape& s, Pass pass) {
  const std::int64_t bytes = pass == Pass::kWgrad ? 32 << 20 : 8 << 20;
  const std::int64_t image = 4 * (count(x_dims(s)) + count(y_dims(s))) / s.n;
  const std::int64_t most = std::clamp<std::int64_t>(bytes / image, 1, s.n);
  return ceil_div(s.n, ceil_div(s.n, most));
}

ConvShape some_images(const ConvShape& shape, std::int64_t images) {
  ConvShape part = in_float32(shape);
  part.n = static_cast<int>(images);
  return part;
}

// run(shape of some images, place of the first in x, in y) for all of them.
template <class Run>
void for_images(const ConvShape& shape, Pass pass, const Run& run) {
  const std::int64_t most = images_at_once(shape, pass);
  const std::int64_t x = count(x_dims(shape)) / shape.n, y = count(y_dims(shape)) / shape.n;
  for (std::int64_t n = 0; n < shape.n; n += most) {
    run(some_images(shape, std::min(most, shape.n - n)), n * x, n * y);
  }
}

// `prepared` as for make_plan().
std::int64_t plan_workspace(const ConvShape& shape, Pass pass, Precision precision, int prepared) {
  std::int64_t bytes = 0;
  for (const auto& plan : conv_plans(shape, pass, precision, prepared)) {
    bytes = std::max(bytes, (plan->reordered ? Scratch::padded(plan->w.get_size()) : 0) +
                                Scratch::padded(plan->scratchpad.get_size()));
  }
  return bytes;
}

// The batch that filters are prepared for.
int prepared_images(const ConvShape& shape, Precision precision) {
  if (!widens(shape, precision)) return shape.n;
  return static_cast<int>(images_at_once(shape, Pass::kFprop));
}

void execute_fprop(const ConvPlan& plan, const void* x, const void* filters, const float* b,
                   void* y, Workspace workspace) {
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

// A plan of prepared filters.
std::shared_ptr<const ConvPlan> prepared_plan(const ConvShape& shape, Precision precision) {
  const int images = prepared_images(shape, precision);
  if (!widens(shape, precision))
    return conv_plan(shape, Pass::kFprop, precision, true, true, images);
  const ConvShape part = some_images(shape, images);
  return conv_plan(part, Pass::kFprop, in_float32(precision), true, true, images);
}

// `prepared` as for make_plan().
template <class T>
void fprop(const ConvShape& shape, Precision precision, const T* x, const void* filters,
           int prepared, const float* b, bool relu, T* y, Workspace workspace) {
  if constexpr (std::is_same_v<T, Bfloat16>) {
    if (widens(shape, precision)) {
      for_images(shape, Pass::kFprop,
                 [&](const ConvShape& part, std::int64_t at_x, std::int64_t at_y) {
                   Scratch scratch("conv_fprop", workspace);
                   const float* wide_x = widened(x + at_x, count(x_dims(part)), scratch);
                   float* wide_y = scratch.take_array<float>(count(y_dims(part)));
                   fprop(part, in_float32(precision), wide_x, filters, prepared, b, relu, wide_y,
                         scratch.rest());
                   to_bfloat16(count(y_dims(part)), wide_y, y + at_y, nullptr);
                 });
      return;
    }
  }
  const auto plan = conv_plan(shape, Pass::kFprop, precision, b != nullptr, relu, prepared);
  execute_fprop(*plan, x, filters, b, y, workspace);
}

}  // namespace

// Where tests pretend that there is one of bfloat16 arrays, that of float32 stands for it.
bool direct_is_reduced(const ConvShape& s, Pass pass, Precision precision) {
  if (!may_reduce(precision, s.storage)) return false;
  const auto plans = conv_plans(takes_bfloat16() ? s : in_float32(s), pass, precision);
  return std::all_of(plans.begin(), plans.end(),
                     [&](const auto& plan) { return is_reduced(plan->implementation, s.storage); });
}

std::int64_t direct_workspace(const ConvShape& shape, Pass pass, Precision precision,
                              bool prepared) {
  const int images = prepared ? prepared_images(shape, precision) : 0;
  if (!widens(shape, precision)) return plan_workspace(shape, pass, precision, images);
  std::int64_t most = 0;
  for_images(shape, pass, [&](const ConvShape& part, std::int64_t, std::int64_t) {
    most = std::max(most, plan_workspace(part, pass, in_float32(precision), images) +
                              Scratch::array_bytes<float>(count(x_dims(part))) +
                              Scratch::array_bytes<float>(count(y_dims(part))));
  });
  if (pass != Pass::kWgrad) return most;
  return most + Scratch::array_bytes<float>(count(w_dims(shape))) +
         Scratch::array_bytes<float>(shape.k);
}

std::int64_t direct_prepared_bytes(const ConvShape& shape, Precision precision) {
  const auto plan = prepared_plan(shape, precision);
  return plan->given == plan->krsc ? 0 : static_cast<std::int64_t>(plan->given.get_size());
}

void direct_prepare(const ConvShape& shape, Precision precision, const float* w,
                    Workspace prepared) {
  const auto plan = prepared_plan(shape, precision);
  memory krsc = memory_at(plan->krsc, w), given = memory_at(plan->given, prepared.data);
  plan->prepare.execute(cpu_stream(), krsc, given);
  cpu_stream().wait();
}

template <class T>
void direct_fprop(const ConvShape& shape, Precision precision, const T* x, const void* filters,
                  bool prepared, const float* b, bool relu, T* y, Workspace workspace) {
  const int images = prepared ? prepared_images(shape, precision) : 0;
  fprop(shape, precision, x, filters, images, b, relu, y, workspace);
}

template <class T>
void direct_dgrad(const ConvShape& shape, Precision precision, const T* dy, const float* w, T* dx,
                  Workspace workspace) {
  if constexpr (std::is_same_v<T, Bfloat16>) {
    if (widens(shape, precision)) {
      for_images(shape, Pass::kDgrad,
                 [&](const ConvShape& part, std::int64_t at_x, std::int64_t at_y) {
                   Scratch scratch("conv_dgrad", workspace);
                   const float* wide_dy = widened(dy + at_y, count(y_dims(part)), scratch);
                   float* wide_dx = scratch.take_array<float>(count(x_dims(part)));
                   direct_dgrad(part, in_float32(precision), wide_dy, w, wide_dx, scratch.rest());
                   to_bfloat16(count(x_dims(part)), wide_dx, dx + at_x, nullptr);
                 });
      return;
    }
  }
  const auto plan = conv_plan(shape, Pass::kDgrad, precision, false, false);
  Scratch scratch("conv_dgrad", workspace);
  plan->conv.execute(cpu_stream(),
                     {{DNNL_ARG_DIFF_DST, memory_at(plan->y, dy)},
                      {DNNL_ARG_WEIGHTS, reordered_filters(*plan, w, scratch)},
                      {DNNL_ARG_DIFF_SRC, memory_at(plan->x, dx)},
                      {DNNL_ARG_SCRATCHPAD,
                       memory_at(plan->scratchpad, scratch.take(plan->scratchpad.get_size()))}});
  cpu_stream().wait();
}

template <class T>
void direct_wgrad(const ConvShape& shape, Precision precision, const T* x, const T* dy, float* dw,
                  float* db, Workspace workspace) {
  if constexpr (std::is_same_v<T, Bfloat16>) {
    if (widens(shape, precision)) {
      for_images(
          shape, Pass::kWgrad, [&](const ConvShape& part, std::int64_t at_x, std::int64_t at_y) {
            Scratch scratch("conv_wgrad", workspace);
            const float* wide_x = widened(x + at_x, count(x_dims(part)), scratch);
            const float* wide_dy = widened(dy + at_y, count(y_dims(part)), scratch);
            const bool first = at_x == 0;
            float* part_dw = first ? dw : scratch.take_array<float>(count(w_dims(shape)));
            float* part_db = first || db == nullptr ? db : scratch.take_array<float>(shape.k);
            direct_wgrad(part, in_float32(precision), wide_x, wide_dy, part_dw, part_db,
                         scratch.rest());
            if (first) return;
            accumulate(count(w_dims(shape)), part_dw, dw, nullptr);
            if (db != nullptr) accumulate(shape.k, part_db, db, nullptr);
          });
      return;
    }
  }
  const auto plan = conv_plan(shape, Pass::kWgrad, precision, db != nullptr, false);
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

CONVNET_FOR_BOTH_TYPES(direct_fprop);
CONVNET_FOR_BOTH_TYPES(direct_dgrad);
CONVNET_FOR_BOTH_TYPES(direct_wgrad);

}  // namespace convnet
