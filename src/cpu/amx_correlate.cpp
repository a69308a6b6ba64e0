// fprop, and dgrad where the stride is 1, by tiles: no matrix of windows is made.
//
//   fprop  y [pixels, K]  = windows of x [pixels, R S C] * w [R S C, K]
//   dgrad  dx [pixels, C] = windows of dy [pixels, R S K] * turned w [R S K, C]
//
// A task is a band of rows of one image and group. It copies what the band reads into its scratch memory,
// with the padding around it; there the pixels of a tile of windows lie evenly apart for each step of the
// sum, so the tile is loaded as it lies. A step is 32 numbers of a filter's row r: of one tap where the
// channels come in 32s, and else of the taps (s, c) as they follow each other; the last of those is
// filled up with zeros in w, so that an infinity or NaN beside a window makes its result a NaN.
#include <algorithm>
#include <cstring>

#include "amx.h"
#include "epilogue.h"
#include "parallel.h"
#include "tiles.h"

namespace convnet {
namespace {

// A convolution of images [n, h, w, groups * in] to [n, p, q, groups * out].
struct Correlation {
  int n, groups, in, out, h, w, p, q, r, s, stride_h, stride_w, pad_h, pad_w;
};

Correlation correlation(const ConvShape& s, Pass pass) {
  const int c = s.c / s.groups, k = s.k / s.groups;
  if (pass == Pass::kFprop) {
    return {s.n, s.groups, c,   k,          s.h,        s.w,     s.p,
            s.q, s.r,      s.s, s.stride_h, s.stride_w, s.pad_h, s.pad_w};
  }
  return {s.n,
          s.groups,
          k,
          c,
          s.p,
          s.q,
          s.h,
          s.w,
          s.r,
          s.s,
          1,
          1,
          s.r - 1 - s.pad_h,
          s.s - 1 - s.pad_w};
}

// How it is cut, by its shape alone.
struct Plan {
  Correlation size;
  int band;              // rows of the result in a task; the last may have fewer
  int tile_rows, tiles;  // pixels of a tile, and tiles of a row: the last overlaps where it must
  int blocks;            // of 16 channels of the result
  int columns;           // of the copied band
  std::vector<int> row, at;           // of each step: r, and where in (s, c) it begins
  std::vector<std::int32_t> offsets;  // of each step in the copied band

  int steps() const { return static_cast<int>(offsets.size()); }
  int band_rows(int rows) const { return (rows - 1) * size.stride_h + size.r; }
  std::int64_t band_numbers() const {
    return std::int64_t{band_rows(band)} * columns * size.in + kTileDepth;
  }
  int bands() const { return static_cast<int>(ceil_div(size.p, band)); }
  std::int64_t filter_numbers() const {
    return std::int64_t{size.groups} * blocks * steps() * kTileNumbers;
  }
};

void add_step(Plan& plan, int r, int at) {
  plan.row.push_back(r);
  plan.at.push_back(at);
  plan.offsets.push_back(r * plan.columns * plan.size.in + at);
}

constexpr std::int64_t kBandNumbers = 1 << 18;  // 512 KiB: in a second-level cache
constexpr int kFewestTasks = 16, kFewestRows = 4;

Plan plan_of(const ConvShape& shape, Pass pass) {
  Plan plan{};
  const Correlation z = plan.size = correlation(shape, pass);
  plan.tiles = static_cast<int>(ceil_div(z.q, kTileRows));
  plan.tile_rows = static_cast<int>(ceil_div(z.q, plan.tiles));
  plan.blocks = static_cast<int>(ceil_div(z.out, kTileColumns));
  plan.columns = (z.q - 1) * z.stride_w + z.s;
  plan.band = z.p;
  while (plan.band > kFewestRows &&
         (plan.band_numbers() > kBandNumbers || z.n * z.groups * plan.bands() < kFewestTasks)) {
    plan.band = static_cast<int>(ceil_div(plan.band, 2));
  }
  for (int r = 0; r < z.r; ++r) {
    if (z.in % kTileDepth != 0) {
      for (int at = 0; at < z.s * z.in; at += kTileDepth) add_step(plan, r, at);
      continue;
    }
    // Taps last: neighbours read nearly the same pixels, from the first-level cache.
    for (int c = 0; c < z.in; c += kTileDepth) {
      for (int s = 0; s < z.s; ++s) add_step(plan, r, s * z.in + c);
    }
  }
  return plan;
}

// ---- filters --------------------------------------------------------------------------------

// What one step multiplies by: [16][16][2] for 32 numbers of the sum, `depth` of them in the filter, and
// `width` channels of the result. Of fprop these are 32 numbers of each of 16 filters in a row.
CONVNET_INLINE void pack_filters_of_fprop(const float* w, std::int64_t filter, int depth, int width,
                                          Bfloat16* to) {
  for (int n = 0; n < kTileColumns; ++n, w += filter) {
    alignas(64) Bfloat16 row[kTileDepth];
    const int used = n < width ? depth : 0;
    clear_numbers(kTileDepth, row);
    CONVNET_SIMD_16
    for (int i = 0; i < used; ++i) row[i].bits = rounded(w[i]).bits;
    for (int i = 0; i < kTileDepth; i += 2) {
      std::memcpy(to + i * kTileColumns + 2 * n, row + i, 2 * sizeof *row);
    }
  }
}

// Of dgrad, whose filters are turned by 180 degrees, 16 channels in a row of each of 32 filters; (s, k) of
// the first is (at / in, at % in) in filters of s_count taps a row.
CONVNET_INLINE void pack_filters_of_dgrad(const float* w, std::int64_t filter, int in, int out,
                                          int s_count, int at, int width, Bfloat16* to) {
  alignas(64) Bfloat16 rows[2][kTileColumns];
  for (int i = 0; i < kTileDepth; ++i) {
    Bfloat16* row = rows[i % 2];
    const int s = (at + i) / in, k = (at + i) % in, used = s < s_count ? width : 0;
    const float* from = w + k * filter - std::int64_t{s} * out;
    clear_numbers(kTileColumns, row);
    CONVNET_SIMD_16
    for (int n = 0; n < used; ++n) row[n].bits = rounded(from[n]).bits;
    if (i % 2 == 1) pack_pairs(rows[0], rows[1], to + (i - 1) * kTileColumns);
  }
}

// [groups][blocks][steps] of those.
void pack_filters(const Plan& plan, Pass pass, const float* w, Bfloat16* to) {
  const Correlation& z = plan.size;
  const std::int64_t taps = std::int64_t{z.r} * z.s, group = taps * z.in * z.out;
  parallel_for(std::int64_t{z.groups} * plan.blocks, [&](std::int64_t task) {
    const float* const own = w + task / plan.blocks * group;
    const auto n = static_cast<int>(task % plan.blocks) * kTileColumns;
    const int width = std::min(kTileColumns, z.out - n);
    Bfloat16* tile = to + task * plan.steps() * kTileNumbers;
    for (int i = 0; i < plan.steps(); ++i, tile += kTileNumbers) {
      const int r = plan.row[i], at = plan.at[i];
      if (pass == Pass::kFprop) {
        const std::int64_t row = std::int64_t{z.s} * z.in;
        vectorized<pack_filters_of_fprop>(own + n * taps * z.in + r * row + at, taps * z.in,
                                          std::min(kTileDepth, z.s * z.in - at), width, tile);
      } else {
        const std::int64_t last = taps - 1 - std::int64_t{r} * z.s;  // tap that is turned to s = 0
        vectorized<pack_filters_of_dgrad>(own + last * z.out + n, taps * z.out, z.in, z.out, z.s,
                                          at, width, tile);
      }
    }
  });
}

// ---- a band -----------------------------------------------------------------------------------

CONVNET_INLINE void copy_pixels(const Bfloat16* from, std::int64_t pitch, int pixels, int channels,
                                Bfloat16* to) {
  for (int i = 0; i < pixels; ++i, from += pitch, to += channels) {
    copy_numbers(from, channels, to);
  }
}

// What the rows [p, p + rows) of the result read of one group of image n, with the padding.
void copy_band(const Plan& plan, const Bfloat16* x, int n, int group, int p, int rows,
               Bfloat16* band) {
  const Correlation& z = plan.size;
  const std::int64_t pitch = std::int64_t{z.groups} * z.in;
  const std::int64_t row = std::int64_t{plan.columns} * z.in;
  const int begin = std::clamp(z.pad_w, 0, plan.columns);  // columns that the image has
  const int end = std::clamp(z.w + z.pad_w, begin, plan.columns);
  for (int i = 0; i < plan.band_rows(rows); ++i, band += row) {
    const int h = p * z.stride_h - z.pad_h + i;
    if (h < 0 || h >= z.h) {
      std::fill_n(band, row, Bfloat16{0});
      continue;
    }
    const std::int64_t first = (std::int64_t{n} * z.h + h) * z.w + begin - z.pad_w;
    std::fill_n(band, begin * z.in, Bfloat16{0});
    vectorized<copy_pixels>(x + first * pitch + group * z.in, pitch, end - begin, z.in,
                            band + begin * z.in);
    std::fill_n(band + end * z.in, (plan.columns - end) * z.in, Bfloat16{0});
  }
  std::fill_n(band, kTileDepth, Bfloat16{0});  // the last step may read so far
}

CONVNET_INLINE void store_rows(const float* c, int rows, std::int64_t pitch, std::int64_t offset,
                               int channel, int width, const Epilogue<Bfloat16>& epilogue,
                               Bfloat16* y) {
  for (int i = 0; i < rows; ++i, c += kTileColumns, offset += pitch) {
    if (width == kTileColumns) {
      epilogue.store(c, y, offset, channel, kTileColumns);
    } else {
      epilogue.store(c, y, offset, channel, width);
    }
  }
}

void correlate_band(const Plan& plan, const Bfloat16* filters, const Bfloat16* band, int n,
                    int group, int p, int rows, const Epilogue<Bfloat16>& epilogue, Bfloat16* y) {
  const Correlation& z = plan.size;
  const TileScope scope(plan.tile_rows);
  alignas(64) float sums[2][2][kTileRows * kTileColumns];
  const std::int64_t pitch = std::int64_t{z.groups} * z.out;
  const std::int64_t tile_block = std::int64_t{plan.steps()} * kTileNumbers;
  const int all = rows * plan.tiles;
  const auto row_of = [&](int tile) { return tile / plan.tiles; };
  const auto column_of = [&](int tile) {
    return std::min(tile % plan.tiles * plan.tile_rows, z.q - plan.tile_rows);
  };
  TileProduct product{};
  product.rows = plan.tile_rows, product.steps = plan.steps();
  product.pitch = std::int64_t{z.stride_w} * z.in;
  product.offsets = plan.offsets.data(), product.c_pitch = kTileColumns;
  for (int i = 0; i < 4; ++i) product.c[i / 2][i % 2] = sums[i / 2][i % 2];
  for (int block = 0; block < plan.blocks; block += 2) {
    product.n = std::min(2, plan.blocks - block);
    for (int j = 0; j < product.n; ++j) {
      product.b[j] = filters + (std::int64_t{group} * plan.blocks + block + j) * tile_block;
    }
    for (int tile = 0; tile < all; tile += 2) {
      product.m = std::min(2, all - tile);
      for (int i = 0; i < product.m; ++i) {
        const std::int64_t pixel = std::int64_t{row_of(tile + i)} * z.stride_h * plan.columns +
                                   column_of(tile + i) * z.stride_w;
        product.a[i] = band + pixel * z.in;
      }
      multiply_tiles(product);
      for (int i = 0; i < product.m; ++i) {
        const std::int64_t pixel =
            (std::int64_t{n} * z.p + p + row_of(tile + i)) * z.q + column_of(tile + i);
        for (int j = 0; j < product.n; ++j) {
          const int channel = (block + j) * kTileColumns;
          vectorized<store_rows>(sums[i][j], plan.tile_rows, pitch,
                                 pixel * pitch + group * z.out + channel, group * z.out + channel,
                                 std::min(kTileColumns, z.out - channel), epilogue, y);
        }
      }
    }
  }
}

std::int64_t band_bytes(const Plan& plan) {
  return thread_count() * Scratch::array_bytes<Bfloat16>(plan.band_numbers());
}

void correlate(const Plan& plan, const Bfloat16* filters, const Bfloat16* x,
               const Epilogue<Bfloat16>& epilogue, Bfloat16* y, Scratch scratch) {
  const Correlation& z = plan.size;
  std::vector<Bfloat16*> bands;  // one for each thread
  for (int i = 0; i < thread_count(); ++i) {
    bands.push_back(scratch.take_array<Bfloat16>(plan.band_numbers()));
  }
  parallel_for(std::int64_t{z.n} * z.groups * plan.bands(), [&](std::int64_t task) {
    Bfloat16* const band = bands[omp_get_thread_num()];
    const int p = static_cast<int>(task % plan.bands()) * plan.band;
    const int group = static_cast<int>(task / plan.bands() % z.groups);
    const int n = static_cast<int>(task / plan.bands() / z.groups);
    const int rows = std::min(plan.band, z.p - p);
    copy_band(plan, x, n, group, p, rows, band);
    correlate_band(plan, filters, band, n, group, p, rows, epilogue, y);
  });
}

}  // namespace

double amx_correlate_products(const ConvShape& shape, Pass pass) {
  const Plan plan = plan_of(shape, pass);
  const Correlation& z = plan.size;
  constexpr int kFewestRows = 12;  // fewer take as long
  const double rows = 1.0 * z.n * z.p * plan.tiles * std::max(plan.tile_rows, kFewestRows);
  return rows * z.groups * plan.blocks * kTileColumns * plan.steps() * kTileDepth;
}

FpropBytes amx_fprop_bytes(const ConvShape& shape) {
  const Plan plan = plan_of(shape, Pass::kFprop);
  const auto each = static_cast<std::int64_t>(sizeof(Bfloat16));
  return {each * plan.filter_numbers(), 0, band_bytes(plan)};
}

std::int64_t amx_dgrad_workspace(const ConvShape& shape) {
  const Plan plan = plan_of(shape, Pass::kDgrad);
  return Scratch::array_bytes<Bfloat16>(plan.filter_numbers()) + band_bytes(plan);
}

void amx_prepare(const ConvShape& shape, const float* w, Workspace prepared) {
  pack_filters(plan_of(shape, Pass::kFprop), Pass::kFprop, w,
               static_cast<Bfloat16*>(prepared.data));
}

void amx_fprop(const ConvShape& shape, const Bfloat16* x, Workspace prepared, const float* b,
               bool relu, Bfloat16* y, Workspace workspace) {
  correlate(plan_of(shape, Pass::kFprop), static_cast<const Bfloat16*>(prepared.data), x,
            {b, relu, nullptr}, y, Scratch("conv_fprop", workspace));
}

void amx_dgrad(const ConvShape& shape, const Bfloat16* dy, const float* w,
               const Bfloat16* relu_mask, Bfloat16* dx, Workspace workspace) {
  const Plan plan = plan_of(shape, Pass::kDgrad);
  Scratch scratch("conv_dgrad", workspace);
  auto* const filters = scratch.take_array<Bfloat16>(plan.filter_numbers());
  pack_filters(plan, Pass::kDgrad, w, filters);
  correlate(plan, filters, dy, {nullptr, false, relu_mask}, dx, scratch);
}

}  // namespace convnet
