// Which algorithm a convolution takes, by a model of its cost, and the matrix products that it comes
// to.
#include "winograd_plan.h"

#include "choice.h"
#include "winograd.h"

namespace convnet::winograd {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

constexpr Variant kVariants[] = {
    {Algorithm::kF2x3, 2, 3}, {Algorithm::kF3x3, 3, 3}, {Algorithm::kF2x5, 2, 5}};

struct Sizes {
  int groups, in, out, out_h, out_w;

  std::int64_t tiles(int n, int m) const { return n * ceil_div(out_h, m) * ceil_div(out_w, m); }
};

Sizes sizes(const ConvShape& s, Pass pass) {
  const int c = s.c / s.groups, k = s.k / s.groups;
  if (pass == Pass::kDgrad) return {s.groups, k, c, s.h, s.w};
  return {s.groups, c, k, s.p, s.q};
}

// What transforming one number costs, in multiplications of a matrix product. Measured: 18 to 26
// for images, 30 to 45 in wgrad, where what is transformed leaves the cache before it is used,
// and about 180 for filters, whose numbers lie far apart and are laid out once more.
constexpr double kTransformCost = 25, kWgradTransformCost = 40, kFilterCost = 200;

// The cost in multiplications.
double cost(const ConvShape& s, Pass pass, const Variant& variant) {
  const Sizes z = sizes(s, pass);
  const double filters = 1.0 * z.in * z.out * z.groups;
  const double each = pass == Pass::kWgrad ? kWgradTransformCost : kTransformCost;
  const double transforms = each * z.groups * (z.in + z.out);
  const auto tiles = static_cast<double>(z.tiles(s.n, variant.m));
  return variant.numbers() * (tiles * (filters + transforms) + kFilterCost * filters);
}

// The cheapest of those for filters of this size; null where there is none.
const Variant* best_variant(const ConvShape& s, Pass pass) {
  const Variant* best = nullptr;
  for (const Variant& variant : kVariants) {
    if (variant.r != s.r || variant.r != s.s) continue;
    if (best == nullptr || cost(s, pass, variant) < cost(s, pass, *best)) best = &variant;
  }
  return best;
}

// Tiles of one matrix product. Between 32 and 128 (wgrad: 96 and 192) it makes little difference.
constexpr int kBlock = 64, kWgradBlock = 128;

// fprop, dgrad: [tiles, in] x [in, out]; wgrad: [out, tiles] x [tiles, in], added to the result.
std::shared_ptr<const Plan> make_plan(const ConvShape& s, Pass pass) {
  const Sizes z = sizes(s, pass);
  const auto f32 = memory::data_type::f32;
  auto plan = std::make_shared<Plan>();
  plan->variant = *best_variant(s, pass);
  plan->numbers = plan->variant.numbers();
  plan->groups = z.groups, plan->in = z.in, plan->out = z.out;
  plan->tiles_h = static_cast<int>(ceil_div(z.out_h, plan->variant.m));
  plan->tiles_w = static_cast<int>(ceil_div(z.out_w, plan->variant.m));
  plan->tiles = z.tiles(s.n, plan->variant.m);
  dnnl::primitive_attr attr = user_scratchpad(Precision::kFp32);
  if (pass == Pass::kWgrad) {
    const memory::dim batch = plan->numbers * z.groups;
    plan->block = static_cast<int>(std::min<std::int64_t>(plan->tiles, kWgradBlock));
    plan->left = memory::desc({batch, z.out, plan->block}, f32, Tag::acb);
    plan->right = memory::desc({batch, plan->block, z.in}, f32, Tag::abc);
    plan->result = memory::desc({batch, z.out, z.in}, f32, Tag::abc);
    dnnl::post_ops add;
    add.append_sum(1.0f);
    attr.set_post_ops(add);
    plan->wgrad = Product::matmul(plan->left, plan->right, {}, plan->result, attr);
    return plan;
  }
  const memory::dim batch = plan->numbers;
  plan->block = static_cast<int>(std::min<std::int64_t>(plan->tiles, kBlock));
  plan->left = memory::desc({batch, plan->block, z.in}, f32, Tag::abc);
  plan->result = memory::desc({batch, plan->block, z.out}, f32, Tag::abc);
  const OneThread alone;  // each thread multiplies blocks of its own
  const dnnl::matmul::primitive_desc product(
      cpu_engine(), plan->left, {{batch, z.in, z.out}, f32, Tag::any}, plan->result, attr);
  plan->product = dnnl::matmul(product);
  plan->right = product.weights_desc();
  plan->scratchpad = product.scratchpad_desc();
  // Filters are transformed as they lie, K x C: right for dgrad, turned for fprop.
  plan->right_as_made =
      memory::desc({batch, z.in, z.out}, f32, pass == Pass::kFprop ? Tag::acb : Tag::abc);
  plan->reordered = plan->right != plan->right_as_made;
  if (plan->reordered) {
    plan->reorder = dnnl::reorder(dnnl::reorder::primitive_desc(cpu_engine(), plan->right_as_made,
                                                                cpu_engine(), plan->right));
  }
  return plan;
}

}  // namespace

std::shared_ptr<const Plan> plan_of(const ConvShape& s, Pass pass) {
  static PlanCache<Plan> cache;
  return cache.get({static_cast<int>(pass), s.n, s.h, s.w, s.c, s.k, s.r, s.p, s.q, s.groups},
                   [&] { return make_plan(s, pass); });
}

}  // namespace convnet::winograd

namespace convnet {

using namespace winograd;

double direct_cost(const ConvShape& s) {
  return 1.0 * s.n * s.p * s.q * s.k * s.r * s.s * (s.c / s.groups);
}

bool winograd_suits(const ConvShape& s, Pass pass, double otherwise) {
  const Choice chosen = choice_of("CONVNET_WINOGRAD");
  if (s.stride_h != 1 || s.stride_w != 1 || s.pad_h >= s.r || s.pad_w >= s.s) return false;
  const Variant* variant = best_variant(s, pass);
  if (variant == nullptr || chosen == Choice::kOff) return false;
  return chosen == Choice::kAlways || cost(s, pass, *variant) < otherwise;
}

std::string winograd_name(const ConvShape& shape, Pass pass) {
  const Variant* variant = best_variant(shape, pass);
  const std::string m = std::to_string(variant->m), r = std::to_string(variant->r);
  return "Winograd, F(" + m + " x " + m + ", " + r + " x " + r + ")";
}

}  // namespace convnet
