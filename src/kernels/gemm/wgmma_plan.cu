// How the Hopper kernels cut a convolution, on the host.
#include "wgmma_plan.cuh"

#include "kernels/device/vectors.h"

namespace convnet {
namespace {

constexpr std::int64_t kMultiprocessors = 132;
// Of shared memory; the rest is for barriers and for alignment.
constexpr std::int64_t kSharedBytes = (227 - 2) * 1024;
constexpr std::int64_t kMostSlabBytes = kSharedBytes - kFilterRingBytes;  // of both slabs
constexpr std::int64_t kMostPartials = 5 << 20;                           // floats, 20 MB

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Rows of a slab for any `pixels` successive ones of the result: the lines that they touch, and for
// each picture that they touch r - 1 rows more.
std::int64_t most_slab_rows(const ConvShape& s, std::int64_t pixels) {
  const std::int64_t all = std::int64_t{s.n} * s.p;
  const std::int64_t lines = min((s.q - 1 + pixels - 1) / s.q + 1, all);
  const std::int64_t pictures = min((s.p - 1 + lines - 1) / s.p + 1, std::int64_t{s.n});
  return lines + pictures * (s.r - 1);
}

std::int64_t slab_pixels(const ConvShape& s) {
  return ceil_div(s.q + s.s - 1, 8) * 8;  // rows begin at multiples of 512 bytes
}

bool slabs_fit(const ConvShape& s, std::int64_t pixels) {
  return 2 * most_slab_rows(s, pixels) * slab_pixels(s) * kPixelBytes <= kMostSlabBytes;
}

// The width that fills up least, of those the widest.
int choose_filters(std::int64_t width) {
  int best = 0;
  std::int64_t least = 0;
  for (const int filters : kTileFilters) {
    const std::int64_t filled = ceil_div(width, filters) * filters;
    if (best == 0 || filled <= least) {
      best = filters;
      least = filled;
    }
  }
  return best;
}

// Large tiles, which read each filter half as often, unless that leaves multiprocessors idle: waves
// of tiles, each as long as a tile has pixels. In float32 accuracy a thread has two sums of each
// element, so there are small ones only.
int choose_pixels(const ConvShape& s, Precision precision, std::int64_t tiles_n) {
  const std::int64_t rows = std::int64_t{s.n} * s.p * s.q;
  const auto time = [&](std::int64_t pixels) {
    return ceil_div(ceil_div(rows, pixels) * tiles_n, kMultiprocessors) * pixels;
  };
  if (precision == Precision::kFp32 || !slabs_fit(s, 256)) return 128;
  return 10 * time(256) <= 11 * time(128) ? 256 : 128;
}

// What a slab of wgrad has: the pixels and sixteens of channels that take the fewest wgmma.
struct Cut {
  std::int64_t pixels, sixteens;  // 0 sixteens: none fits
};

Cut choose_cut(const ConvShape& s, Precision precision) {
  const std::int64_t taps = std::int64_t{s.r} * s.s, all = s.c / s.groups / kSlabK;
  const std::int64_t ring =
      kWgradStages * kWgradFilters * kSlabK * (precision == Precision::kBf16 ? 2 : 4);
  Cut best{0, 0};
  std::int64_t least = 0;
  for (const std::int64_t pixels : {256, 128}) {
    const std::int64_t slab = most_slab_rows(s, pixels) * slab_pixels(s) * kPixelBytes;
    for (std::int64_t sixteens = 1; sixteens <= min(all, std::int64_t{3}); ++sixteens) {
      if (taps * sixteens > 8 * kWgradPieces) break;
      if (2 * (sixteens * slab + pixels * 4) + ring > kSharedBytes) break;
      const std::int64_t cost = ceil_div(all, sixteens) * ceil_div(taps * sixteens, 4);
      if (best.sixteens == 0 || cost < least) {
        best = {pixels, sixteens};
        least = cost;
      }
    }
    if (best.sixteens != 0) break;  // longer slabs share more rows
  }
  return best;
}

}  // namespace

ConvShape as_forward(const ConvShape& shape, Pass pass) {
  if (pass != Pass::kDgrad) return shape;
  ConvShape s = shape;
  s.h = shape.p, s.w = shape.q, s.c = shape.k;
  s.p = shape.h, s.q = shape.w, s.k = shape.c;
  s.pad_h = shape.r - 1 - shape.pad_h;
  s.pad_w = shape.s - 1 - shape.pad_w;
  return s;
}

bool wgmma_serves(const ConvShape& shape, Pass pass, Precision precision) {
  if (precision == Precision::kFfma || (pass == Pass::kWgrad && precision == Precision::kFp32))
    return false;
  if (shape.stride_h != 1 || shape.stride_w != 1) return false;
  const ConvShape s = as_forward(shape, pass);
  const std::int64_t pixels = slab_pixels(s);
  // Slabs whose rows are mostly filling are not worth it: those of dense layers above all.
  if (s.c / s.groups % kSlabK != 0 || pixels > 256 || 2 * s.q < pixels) return false;
  if (pass == Pass::kWgrad) return choose_cut(s, precision).sixteens != 0;
  return s.k / s.groups % 4 == 0 && slabs_fit(s, 128);
}

WgmmaPlan wgmma_plan(const ConvShape& shape, Pass pass, Precision precision) {
  const ConvShape s = as_forward(shape, pass);
  const std::int64_t width = s.k / s.groups;
  WgmmaPlan plan{};
  plan.filters = choose_filters(width);
  const std::int64_t tiles_n = ceil_div(width, plan.filters);
  plan.pixels = choose_pixels(s, precision, tiles_n * s.groups);
  plan.tiles_n = static_cast<unsigned>(tiles_n);
  plan.tiles_m = static_cast<unsigned>(ceil_div(std::int64_t{s.n} * s.p * s.q, plan.pixels));
  plan.slab_pixels = static_cast<unsigned>(slab_pixels(s));
  plan.slab_rows = static_cast<unsigned>(most_slab_rows(s, plan.pixels));
  const std::int64_t bytes = precision == Precision::kBf16   ? 2
                             : precision == Precision::kTf32 ? 4
                                                             : 8;
  plan.filter_bytes = tiles_n * plan.filters * s.r * s.s * (s.c / s.groups) * s.groups * bytes;
  return plan;
}

WgmmaWgradPlan wgmma_wgrad_plan(const ConvShape& s, Precision precision) {
  const Cut cut = choose_cut(s, precision);
  WgmmaWgradPlan plan{};
  plan.slab.pixels = static_cast<int>(cut.pixels);
  plan.slab.slab_pixels = static_cast<unsigned>(slab_pixels(s));
  plan.slab.slab_rows = static_cast<unsigned>(most_slab_rows(s, cut.pixels));
  plan.sixteens = static_cast<unsigned>(cut.sixteens);
  const std::int64_t group_k = s.k / s.groups;
  plan.tiles_c = static_cast<unsigned>(ceil_div(s.c / s.groups, kSlabK * cut.sixteens));
  plan.tiles_k = static_cast<unsigned>(ceil_div(group_k, kWgradFilters));
  plan.outputs = count(w_dims(s));
  // The fewest splits that take the least time: waves of blocks, each as long as its slabs.
  const std::int64_t tiles = std::int64_t{plan.tiles_c} * plan.tiles_k * s.groups;
  const std::int64_t slabs = ceil_div(std::int64_t{s.n} * s.p * s.q, cut.pixels);
  std::int64_t best = slabs, least = ceil_div(tiles, kMultiprocessors) * slabs;
  for (std::int64_t each = slabs - 1; each >= 1; --each) {
    const std::int64_t splits = ceil_div(slabs, each);
    if (splits * plan.outputs > kMostPartials) break;
    const std::int64_t time = ceil_div(tiles * splits, kMultiprocessors) * each;
    if (time < least) {
      least = time;
      best = each;
    }
  }
  plan.each = static_cast<unsigned>(best);
  plan.splits = static_cast<unsigned>(ceil_div(slabs, best));
  return plan;
}

}  // namespace convnet
