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

int element_bytes(const ConvShape& s) { return s.storage == Storage::kBfloat16 ? 2 : 4; }

// Of a slab's pixel: 64 bytes, or 32 where a group's channels are not made of as many.
int slab_channels(const ConvShape& s) {
  const int channels = 64 / element_bytes(s);
  return s.c / s.groups % channels == 0 ? channels : 16;
}

bool slabs_fit(const ConvShape& s, std::int64_t pixels) {
  const std::int64_t pixel_bytes = slab_channels(s) * element_bytes(s);
  return 2 * most_slab_rows(s, pixels) * slab_pixels(s) * pixel_bytes <= kMostSlabBytes;
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

Cut choose_cut(const ConvShape& s) {
  const std::int64_t taps = std::int64_t{s.r} * s.s, all = s.c / s.groups / kPieceK;
  constexpr std::int64_t ring = kWgradStages * kWgradFilters * kWgradRowBytes;
  Cut best{0, 0};
  std::int64_t least = 0;
  for (const std::int64_t pixels : {256, 128}) {
    const std::int64_t slab =
        most_slab_rows(s, pixels) * slab_pixels(s) * kPieceK * element_bytes(s);
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
  const bool half = shape.storage == Storage::kBfloat16;
  if (half != (precision == Precision::kBf16) || precision == Precision::kFfma) return false;
  if (pass == Pass::kWgrad && precision == Precision::kFp32) return false;
  if (shape.stride_h != 1 || shape.stride_w != 1) return false;
  const ConvShape s = as_forward(shape, pass);
  const std::int64_t pixels = slab_pixels(s);
  // Slabs whose rows are mostly filling are not worth it: those of dense layers above all.
  if (s.c / s.groups % 16 != 0 || pixels > 256 || 2 * s.q < pixels) return false;
  if (pass == Pass::kWgrad) {
    return (!half || s.k / s.groups % 2 == 0) && choose_cut(s).sixteens != 0;
  }
  return s.k / s.groups % 4 == 0 && slabs_fit(s, 128);
}

WgmmaPlan wgmma_plan(const ConvShape& shape, Pass pass, Precision precision) {
  const ConvShape s = as_forward(shape, pass);
  const std::int64_t width = s.k / s.groups;
  WgmmaPlan plan{};
  plan.filters = choose_filters(width);
  plan.channels = slab_channels(s);
  plan.pixel_bytes = plan.channels * element_bytes(s);
  const std::int64_t tiles_n = ceil_div(width, plan.filters);
  plan.pixels = choose_pixels(s, precision, tiles_n * s.groups);
  plan.tiles_n = static_cast<unsigned>(tiles_n);
  plan.tiles_m = static_cast<unsigned>(ceil_div(std::int64_t{s.n} * s.p * s.q, plan.pixels));
  plan.slab_pixels = static_cast<unsigned>(slab_pixels(s));
  plan.slab_rows = static_cast<unsigned>(most_slab_rows(s, plan.pixels));
  // fp32 has a high and a low part.
  const std::int64_t bytes = element_bytes(s) * (precision == Precision::kFp32 ? 2 : 1);
  plan.filter_bytes = tiles_n * plan.filters * s.r * s.s * (s.c / s.groups) * s.groups * bytes;
  return plan;
}

WgmmaWgradPlan wgmma_wgrad_plan(const ConvShape& s) {
  const Cut cut = choose_cut(s);
  WgmmaWgradPlan plan{};
  plan.slab.pixels = static_cast<int>(cut.pixels);
  plan.slab.channels = kPieceK;
  plan.slab.pixel_bytes = kPieceK * element_bytes(s);
  plan.slab.slab_pixels = static_cast<unsigned>(slab_pixels(s));
  plan.slab.slab_rows = static_cast<unsigned>(most_slab_rows(s, cut.pixels));
  plan.sixteens = static_cast<unsigned>(cut.sixteens);
  const std::int64_t group_k = s.k / s.groups;
  plan.tiles_c = static_cast<unsigned>(ceil_div(s.c / s.groups, kPieceK * cut.sixteens));
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
  plan.bias_sums = plan.splits * (s.storage == Storage::kBfloat16 ? 4 : 2);
  return plan;
}

}  // namespace convnet
