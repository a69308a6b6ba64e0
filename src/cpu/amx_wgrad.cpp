// wgrad by tiles:  dw [K, R S C] = dy^T [K, pixels] * windows of x [pixels, R S C]
//
// Pixels are taken some hundreds at a time, over all images. dy is turned, once; then each task forms
// some taps of dw for all of K: it lays the windows of its taps out in pairs of pixels, in its scratch
// memory, multiplies, and adds to the sums of its own, so every sum has one order.
#include <algorithm>
#include <cstring>

#include "amx.h"
#include "parallel.h"
#include "row_sums.h"
#include "tiles.h"

namespace convnet {
namespace {

constexpr int kTaskColumns = 96;  // of dw, at least; whole taps
constexpr int kSteps = 16;        // of 32 pixels at a time

// Some taps of a group, one after the other: what a task forms dw of.
struct Taps {
  int group, first, count;
};

// How it is cut, by the shape alone.
struct Plan {
  ConvShape size;
  int in, out, taps;
  int task_taps, slices;  // taps of a task, and tasks of a group
  int out_blocks;         // of 16 output channels of a group
  int blocks;             // of 16 columns of a task
  int steps;
  std::int64_t pixels;

  int tasks() const { return size.groups * slices; }
  Taps taps_of(std::int64_t task) const {
    const int first = static_cast<int>(task % slices) * task_taps;
    return {static_cast<int>(task / slices), first, std::min(task_taps, taps - first)};
  }
  int blocks_of(const Taps& some) const {
    return static_cast<int>(ceil_div(some.count * in, kTileColumns));
  }
  int chunk() const { return steps * kTileDepth; }
  std::int64_t turned_numbers() const {
    return std::int64_t{size.groups} * out_blocks * steps * kTileNumbers;
  }
  std::int64_t window_numbers() const { return std::int64_t{blocks} * steps * kTileNumbers; }
  int columns() const { return blocks * kTileColumns; }  // of the sums of a task
  std::int64_t sum_numbers() const {                     // of a task
    return std::int64_t{out_blocks} * kTileRows * columns();
  }
};

Plan plan_of(const ConvShape& s) {
  Plan plan{};
  plan.size = s;
  plan.in = s.c / s.groups, plan.out = s.k / s.groups, plan.taps = s.r * s.s;
  const auto most = std::clamp<std::int64_t>(kTaskColumns / plan.in, 1, plan.taps);
  plan.slices = static_cast<int>(ceil_div(plan.taps, most));
  plan.task_taps = static_cast<int>(ceil_div(plan.taps, plan.slices));
  plan.slices = static_cast<int>(ceil_div(plan.taps, plan.task_taps));
  plan.out_blocks = static_cast<int>(ceil_div(plan.out, kTileRows));
  plan.blocks = static_cast<int>(ceil_div(plan.task_taps * plan.in, kTileColumns));
  plan.pixels = std::int64_t{s.n} * s.p * s.q;
  plan.steps = static_cast<int>(std::min<std::int64_t>(kSteps, ceil_div(plan.pixels, kTileDepth)));
  return plan;
}

// ---- dy, turned --------------------------------------------------------------------------------

// Pixels [begin, begin + count) of dy as tiles [groups][out_blocks][steps].
void turn(const Plan& plan, const Bfloat16* dy, std::int64_t begin, int count, Bfloat16* to) {
  const std::int64_t pitch = plan.size.k;
  const int blocks = plan.size.groups * plan.out_blocks;
  parallel_for(plan.steps, [&](std::int64_t step) {
    const int first = static_cast<int>(step) * kTileDepth;
    const int pixels = std::clamp(count - first, 0, kTileDepth);
    for (int block = 0; block < blocks; ++block) {
      const int channel = block % plan.out_blocks * kTileRows;
      const std::int64_t at =
          (begin + first) * pitch + block / plan.out_blocks * plan.out + channel;
      vectorized<turn_tile>(dy + at, pitch, pixels, std::min(kTileRows, plan.out - channel),
                            to + (block * std::int64_t{plan.steps} + step) * kTileNumbers);
    }
  });
}

// ---- windows of x ------------------------------------------------------------------------------

// The window of a pixel of y: its first pixel of x may lie in the padding.
struct PixelWindow {
  std::int64_t at;  // of that in x, in numbers
  int h, w;
};

// Of pixels [begin, begin + count); those up to `size` have windows outside of every image.
void find_windows(const ConvShape& s, std::int64_t begin, int count, int size,
                  PixelWindow* windows) {
  constexpr int kNowhere = -(1 << 30);
  int q = static_cast<int>(begin % s.q), p = static_cast<int>(begin / s.q % s.p);
  std::int64_t image = begin / s.q / s.p * s.h;
  for (int i = 0; i < count; ++i) {
    const int h = p * s.stride_h - s.pad_h, w = q * s.stride_w - s.pad_w;
    windows[i] = {((image + h) * s.w + w) * s.c, h, w};
    if (++q < s.q) continue;
    q = 0;
    if (++p < s.p) continue;
    p = 0, image += s.h;
  }
  std::fill(windows + count, windows + size, PixelWindow{0, kNowhere, kNowhere});
}

// Where the windows of a chunk go: tiles [blocks][steps] of pairs of pixels.
struct Pairs {
  Bfloat16* data;
  int steps, blocks;

  CONVNET_INLINE Bfloat16* at(int pixel, int block) const {
    return data + (std::int64_t{block} * steps + pixel / kTileDepth) * kTileNumbers +
           pixel % kTileDepth * kTileColumns;
  }
};

// Where the channels of a group come in 16s, so that a block is of one tap.
CONVNET_INLINE void pair_taps(const ConvShape& s, const Bfloat16* x, const PixelWindow* windows,
                              const Taps& taps, const Pairs& to) {
  alignas(64) static const Bfloat16 zeros[kTileColumns] = {};
  const int in = s.c / s.groups;
  int block = 0;
  for (int tap = taps.first; tap < taps.first + taps.count; ++tap) {
    const int row = tap / s.s, column = tap % s.s;
    const std::int64_t skip = (std::int64_t{row} * s.w + column) * s.c + taps.group * in;
    const auto inside = [&](const PixelWindow& window) CONVNET_LAMBDA_INLINE {
      return static_cast<unsigned>(window.h + row) < static_cast<unsigned>(s.h) &&
             static_cast<unsigned>(window.w + column) < static_cast<unsigned>(s.w);
    };
    for (int i = 0; i < to.steps * kTileDepth; i += 2) {
      const bool even = inside(windows[i]), odd = inside(windows[i + 1]);
      const Bfloat16* first = x + windows[i].at + skip;
      const Bfloat16* second = x + windows[i + 1].at + skip;
      Bfloat16* pairs = to.at(i, block);
      for (int c = 0; c < in; c += kTileColumns, pairs += to.steps * kTileNumbers) {
        pack_pairs(even ? first + c : zeros, odd ? second + c : zeros, pairs);
      }
    }
    block += in / kTileColumns;
  }
}

// What some taps read of a window: [count][C / groups].
CONVNET_INLINE void copy_window(const ConvShape& s, const Bfloat16* x, const PixelWindow& window,
                                const Taps& taps, Bfloat16* to) {
  const int in = s.c / s.groups, end = taps.first + taps.count;
  int row = taps.first / s.s, column = taps.first % s.s;
  for (int tap = taps.first; tap < end; ++row, column = 0) {
    // With one group the taps of a row follow each other in x, too.
    for (; tap < end && column < s.s;) {
      const int run = s.groups == 1 ? std::min(s.s - column, end - tap) : 1;
      const int h = window.h + row, w = window.w + column;
      const int before = h < 0 || h >= s.h ? run : std::clamp(-w, 0, run);
      const int inside = std::clamp(s.w - w - before, 0, run - before);
      const std::int64_t skip = (std::int64_t{row} * s.w + column + before) * s.c;
      clear_numbers(before * in, to);
      copy_numbers(x + window.at + skip + taps.group * in, inside * in, to + before * in);
      clear_numbers((run - before - inside) * in, to + (before + inside) * in);
      tap += run, column += run, to += run * in;
    }
  }
}

// Any number of channels, by way of two rows.
CONVNET_INLINE void pair_rows(const ConvShape& s, const Bfloat16* x, const PixelWindow* windows,
                              const Taps& taps, Bfloat16* rows, const Pairs& to) {
  Bfloat16 *even = rows, *odd = rows + to.blocks * kTileColumns;
  clear_numbers(2 * to.blocks * kTileColumns, rows);  // beyond the last tap they stay so
  for (int i = 0; i < to.steps * kTileDepth; i += 2) {
    copy_window(s, x, windows[i], taps, even);
    copy_window(s, x, windows[i + 1], taps, odd);
    for (int block = 0; block < to.blocks; ++block) {
      pack_pairs(even + block * kTileColumns, odd + block * kTileColumns, to.at(i, block));
    }
  }
}

// The sums of a task to where they belong in dw.
void store(const Plan& plan, const Taps& taps, const float* sums, float* dw) {
  const std::int64_t filter = std::int64_t{plan.taps} * plan.in;
  const int columns = taps.count * plan.in;
  float* to = dw + taps.group * plan.out * filter + std::int64_t{taps.first} * plan.in;
  for (int k = 0; k < plan.out; ++k) {
    std::copy_n(sums + std::int64_t{k} * plan.columns(), columns, to + k * filter);
  }
}

}  // namespace

double amx_wgrad_products(const ConvShape& shape) {
  const Plan plan = plan_of(shape);
  const double columns = 1.0 * plan.slices * plan.blocks * kTileColumns;
  return 1.0 * plan.pixels * shape.groups * plan.out_blocks * kTileRows * columns;
}

std::int64_t amx_wgrad_workspace(const ConvShape& shape) {
  const Plan plan = plan_of(shape);
  const std::int64_t windows = plan.window_numbers() + 2 * plan.columns();
  return Scratch::array_bytes<Bfloat16>(plan.turned_numbers()) +
         thread_count() * Scratch::array_bytes<Bfloat16>(windows) +
         Scratch::array_bytes<float>(plan.tasks() * plan.sum_numbers()) +
         Scratch::padded(row_sums_bytes(plan.pixels, shape.k));
}

void amx_wgrad(const ConvShape& shape, const Bfloat16* x, const Bfloat16* dy, float* dw, float* db,
               Workspace workspace) {
  const Plan plan = plan_of(shape);
  Scratch scratch("conv_wgrad", workspace);
  auto* const turned = scratch.take_array<Bfloat16>(plan.turned_numbers());
  auto* const sums = scratch.take_array<float>(plan.tasks() * plan.sum_numbers());
  std::vector<PixelWindow> windows(plan.chunk());
  std::vector<Bfloat16*> matrices;  // of pairs, one for each thread
  for (int i = 0; i < thread_count(); ++i) {
    matrices.push_back(scratch.take_array<Bfloat16>(plan.window_numbers() + 2 * plan.columns()));
  }

  for (std::int64_t begin = 0; begin < plan.pixels; begin += plan.chunk()) {
    const auto count = static_cast<int>(std::min<std::int64_t>(plan.chunk(), plan.pixels - begin));
    turn(plan, dy, begin, count, turned);
    find_windows(shape, begin, count, plan.chunk(), windows.data());
    parallel_for(plan.tasks(), [&](std::int64_t task) {
      const Taps taps = plan.taps_of(task);
      Bfloat16* const mine = matrices[omp_get_thread_num()];
      const Pairs pairs{mine, plan.steps, plan.blocks_of(taps)};
      if (plan.in % kTileColumns == 0) {
        vectorized<pair_taps>(shape, x, windows.data(), taps, pairs);
      } else {
        vectorized<pair_rows>(shape, x, windows.data(), taps, mine + plan.window_numbers(), pairs);
      }
      const std::int64_t skip = std::int64_t{taps.group} * plan.out_blocks * plan.steps;
      multiply_strips(turned + skip * kTileNumbers, plan.out_blocks, pairs.data, pairs.blocks,
                      plan.steps, begin > 0, sums + task * plan.sum_numbers(), plan.columns());
    });
  }
  parallel_for(plan.tasks(), [&](std::int64_t task) {
    store(plan, plan.taps_of(task), sums + task * plan.sum_numbers(), dw);
  });
  if (db == nullptr) return;
  auto* const partial = static_cast<float*>(scratch.take(row_sums_bytes(plan.pixels, shape.k)));
  sum_rows(dy, plan.pixels, shape.k, partial, db);
}

}  // namespace convnet
