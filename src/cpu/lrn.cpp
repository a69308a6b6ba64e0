// Local response normalization across channels (paper, section 3.3).
//   s_i = k + alpha * sum_{j in window(i)} x_j^2,   window(i) = i - n/2 .. i - n/2 + n - 1
//   y_i = x_i * s_i^-beta
//   dx_i = dy_i s_i^-beta - 2 alpha beta x_i sum_{j : i in window(j)} dy_j x_j s_j^(-beta-1)
// both windows clipped to the group of i.
//
// Method: the squares of a few pixels are laid out in a line, with n - 1 zeros between one group
// and the next, so that no window needs clipping. A window sum is then n shifted additions over the
// whole line, whatever C and the groups are, and s^-beta one more pass. The line stays in the L1
// cache. The backward pass computes s again: cheaper than reading it.
//
// Cost: one read and one write per element (backward: two and one), and arithmetic that takes about
// as long; the next block is prefetched meanwhile.
#include <vector>

#include "elementary.h"
#include "ops.h"
#include "parallel.h"

namespace convnet {
namespace {

constexpr std::int64_t kLine = 1024;  // floats; four such arrays fit in the L1 cache
constexpr std::int64_t kPiece = 256;  // floats computed between two rounds of prefetching
constexpr float kLargest = std::numeric_limits<float>::max();

// Where things are in a line: channel c of group g of the block's pixel m has its window sum at
// (m * groups + g) * step + c.
struct Line {
  int channels, groups;         // channels per group
  int left, right, window;      // the window, no wider than the group needs
  std::int64_t step;            // floats from one group to the next
  std::int64_t pixels, length;  // pixels per block, floats of the sums of a block
  std::int64_t storage() const { return length + window; }  // with the zeros
};

Line make_line(const LrnShape& shape) {
  Line line{};
  line.channels = shape.c / shape.groups;
  line.groups = shape.groups;
  line.left = std::min(shape.n / 2, line.channels - 1);
  line.right = std::min(shape.n - 1 - shape.n / 2, line.channels - 1);
  line.window = line.left + 1 + line.right;
  line.step = line.channels + line.window - 1;
  line.pixels = std::max<std::int64_t>(1, kLine / (line.step * line.groups));
  line.length = line.pixels * line.groups * line.step;
  return line;
}

template <int kWindow>
CONVNET_INLINE float window_sum(const float* first) {
  float sum = first[0];
  for (int t = 1; t < kWindow; ++t) sum += first[t];
  return sum;
}

// sums[i] = values[i] + .. + values[i + window - 1], four terms a pass.
CONVNET_INLINE void window_sums(std::int64_t length, int window, const float* __restrict values,
                                float* __restrict sums) {
  if (window == 5) {
    for (std::int64_t i = 0; i < length; ++i) sums[i] = window_sum<5>(values + i);
    return;
  }
  for (std::int64_t i = 0; i < length; ++i) sums[i] = values[i];
  int t = 1;
  for (; t + 4 <= window; t += 4) {
    for (std::int64_t i = 0; i < length; ++i) sums[i] += window_sum<4>(values + i + t);
  }
  for (; t < window; ++t) {
    for (std::int64_t i = 0; i < length; ++i) sums[i] += values[i + t];
  }
}

// s^-beta, by the cheapest way for the beta at hand.
struct PowerThreeQuarters {
  CONVNET_INLINE float operator()(float s) const {
    return power_minus_three_quarters(kLargest < s ? kLargest : s);  // also for infinity
  }
};
struct PowerHalf {
  CONVNET_INLINE float operator()(float s) const { return 1.0f / std::sqrt(s); }
};
struct PowerOne {
  CONVNET_INLINE float operator()(float s) const { return 1.0f / s; }
};
struct PowerAny {
  Exponent beta;
  CONVNET_INLINE float operator()(float s) const { return power_minus(s, beta); }
};

// power = s^-beta and, for the backward pass, next = s^(-beta-1).
template <bool kNext, class Power>
CONVNET_INLINE void raise_one(float s, const Power& raise, float* power, float* next) {
  const float p = raise(s);
  *power = p;
  if constexpr (kNext) *next = p / s;
}

// The same for `power` holding window sums, of which s = k + alpha * sum.
template <bool kNext, class Power>
CONVNET_INLINE void raise_sums(const LrnShape& shape, std::int64_t length, const Power& raise,
                               float* power, float* next) {
  const float k = shape.k, alpha = shape.alpha;
  CONVNET_SIMD
  for (std::int64_t i = 0; i < length; ++i) {
    raise_one<kNext>(k + alpha * power[i], raise, power + i, next + i);
  }
}

// power[i] and next[i] of the window sum of squares that starts at i. The paper's n and beta have a
// loop of their own, where the sums stay in registers.
template <bool kNext>
CONVNET_INLINE void powers(const LrnShape& shape, std::int64_t length, int window,
                           const float* squares, float* power, float* next) {
  if (window == 5 && shape.beta == 0.75f) {
    const float k = shape.k, alpha = shape.alpha;
    CONVNET_SIMD
    for (std::int64_t i = 0; i < length; ++i) {
      raise_one<kNext>(k + alpha * window_sum<5>(squares + i), PowerThreeQuarters{}, power + i,
                       next + i);
    }
    return;
  }
  window_sums(length, window, squares, power);
  if (shape.beta == 0.75f) {
    raise_sums<kNext>(shape, length, PowerThreeQuarters{}, power, next);
  } else if (shape.beta == 0.5f) {
    raise_sums<kNext>(shape, length, PowerHalf{}, power, next);
  } else if (shape.beta == 1.0f) {
    raise_sums<kNext>(shape, length, PowerOne{}, power, next);
  } else {
    raise_sums<kNext>(shape, length, PowerAny{split_exponent(shape.beta)}, power, next);
  }
}

// Zero-filled arrays of line.storage() floats. The zeros between groups are never written to.
struct Scratch {
  explicit Scratch(const Line& line)
      : memory(4 * static_cast<std::size_t>(line.storage()), 0.0f),
        squares(memory.data()),
        terms(squares + line.storage()),
        power(terms + line.storage()),
        next(power + line.storage()) {}
  std::vector<float> memory;
  float *squares, *terms, *power, *next;
};

// A block of `rows` = pixels * groups rows of line.channels floats, and how many floats of the
// tensor follow it.
struct Block {
  std::int64_t rows, following;
};

// Asks for floats first .. first + count - 1 of those that follow the block, to arrive while the
// arithmetic of this one goes on.
CONVNET_INLINE void prefetch_next(const Block& block, const Line& line, const float* p,
                                  std::int64_t first, std::int64_t count) {
#if defined(__GNUC__)
  const float* next = p + block.rows * line.channels;
  const std::int64_t last = std::min(first + count, block.following);
  for (std::int64_t i = first; i < last; i += 16) __builtin_prefetch(next + i);
#endif
}

CONVNET_INLINE void square_rows(const Block& block, const Line& line, const float* __restrict x,
                                float* __restrict squares) {
  for (std::int64_t row = 0; row < block.rows; ++row) {
    const float* in = x + row * line.channels;
    float* out = squares + row * line.step + line.left;
    for (std::int64_t c = 0; c < line.channels; ++c) out[c] = in[c] * in[c];
  }
}

CONVNET_CLONES void fprop_block(const LrnShape& shape, const Line& line, const Block& block,
                                const Scratch& scratch, const float* __restrict x,
                                float* __restrict y) {
  square_rows(block, line, x, scratch.squares);
  const std::int64_t length = block.rows * line.step;
  for (std::int64_t i = 0; i < length; i += kPiece) {
    const std::int64_t size = std::min(kPiece, length - i);
    prefetch_next(block, line, x, i, size);
    powers<false>(shape, size, line.window, scratch.squares + i, scratch.power + i,
                  scratch.next + i);
  }
  for (std::int64_t row = 0; row < block.rows; ++row) {
    const float* in = x + row * line.channels;
    const float* factor = scratch.power + row * line.step;
    float* out = y + row * line.channels;
    for (std::int64_t c = 0; c < line.channels; ++c) out[c] = in[c] * factor[c];
  }
}

// terms = dy x s^(-beta-1), where the windows that hold i are those of i - right .. i + left: the
// mirror image of the forward window, so its sum starts `right` and not `left` before i.
CONVNET_INLINE void term_rows(const Block& block, const Line& line, const float* __restrict x,
                              const float* __restrict dy, const Scratch& scratch) {
  for (std::int64_t row = 0; row < block.rows; ++row) {
    const float* in = x + row * line.channels;
    const float* grad = dy + row * line.channels;
    const float* factor = scratch.next + row * line.step;
    float* __restrict out = scratch.terms + row * line.step + line.right;
    for (std::int64_t c = 0; c < line.channels; ++c) out[c] = grad[c] * in[c] * factor[c];
  }
}

CONVNET_CLONES void bprop_block(const LrnShape& shape, const Line& line, const Block& block,
                                const Scratch& scratch, const float* __restrict x,
                                const float* __restrict dy, float* __restrict dx) {
  square_rows(block, line, x, scratch.squares);
  const std::int64_t length = block.rows * line.step;
  for (std::int64_t i = 0; i < length; i += kPiece) {
    const std::int64_t size = std::min(kPiece, length - i);
    prefetch_next(block, line, x, i, size);
    powers<true>(shape, size, line.window, scratch.squares + i, scratch.power + i,
                 scratch.next + i);
  }
  term_rows(block, line, x, dy, scratch);
  const float factor = 2.0f * shape.alpha * shape.beta;
  for (std::int64_t i = 0; i < length; i += kPiece) {
    const std::int64_t size = std::min(kPiece, length - i);
    prefetch_next(block, line, dy, i, size);
    window_sums(size, line.window, scratch.terms + i, scratch.next + i);
  }
  for (std::int64_t row = 0; row < block.rows; ++row) {
    const float* in = x + row * line.channels;
    const float* grad = dy + row * line.channels;
    const float* power = scratch.power + row * line.step;
    const float* sums = scratch.next + row * line.step;
    float* out = dx + row * line.channels;
    for (std::int64_t c = 0; c < line.channels; ++c) {
      out[c] = grad[c] * power[c] - factor * in[c] * sums[c];
    }
  }
}

// run(block, scratch, offset of the block in the tensor) for all of the tensor.
template <class Run>
void for_blocks(const LrnShape& shape, const Line& line, const Run& run) {
  const std::int64_t pixels_per_task =
      line.pixels * std::max<std::int64_t>(1, 2 * kChunk / (line.pixels * shape.c));
  const auto task = [&](std::int64_t first, std::int64_t pixels) {
    const Scratch scratch(line);
    for (std::int64_t m = first; m < first + pixels; m += line.pixels) {
      const std::int64_t size = std::min(line.pixels, first + pixels - m);
      run(Block{size * line.groups, (shape.pixels - m - size) * shape.c}, scratch, m * shape.c);
    }
  };
  parallel_chunks(shape.pixels, pixels_per_task, task);
}

}  // namespace

void lrn_fprop(const LrnShape& shape, const float* x, float* y, Stream) {
  const Line line = make_line(shape);
  for_blocks(shape, line, [&](const Block& block, const Scratch& scratch, std::int64_t at) {
    fprop_block(shape, line, block, scratch, x + at, y + at);
  });
}

void lrn_bprop(const LrnShape& shape, const float* x, const float* dy, float* dx, Stream) {
  const Line line = make_line(shape);
  for_blocks(shape, line, [&](const Block& block, const Scratch& scratch, std::int64_t at) {
    bprop_block(shape, line, block, scratch, x + at, dy + at, dx + at);
  });
}

}  // namespace convnet
