// Local response normalization across channels (paper, section 3.3).
//   s_i = k + alpha * sum_{j in window(i)} x_j^2,   window(i) = i - n/2 .. i - n/2 + n - 1
//   y_i = x_i * s_i^-beta
//   dx_i = dy_i s_i^-beta - 2 alpha beta x_i sum_{j : i in window(j)} dy_j x_j s_j^(-beta-1)
// both windows clipped to the group of i.
//
// Method: the squares of a few pixels are laid out in a line, with n - 1 zeros between one group and
// the next, so that no window needs clipping. A window sum is then n shifted additions over the
// whole line, whatever C and the groups are, and s^-beta one more pass. The line stays in the L1
// cache. The backward pass computes s again: cheaper than reading it.
//
// Cost: one read and one write per element (backward: two and one). s^-beta takes two square roots
// and a division for the usual beta = 3/4, which is about what memory takes on two cores.
#include <vector>

#include "elementary.h"
#include "ops.h"
#include "parallel.h"

namespace convnet {
namespace {

constexpr std::int64_t kLine = 2048;  // floats; four such arrays fit in the L1 cache

// Where things are in a line: channel c of group g of the block's pixel m has its window sum at
// (m * groups + g) * step + c.
struct Line {
  int channels, groups;          // channels per group
  int left, right, window;       // the window, no wider than the group needs
  std::int64_t step;             // floats from one group to the next
  std::int64_t pixels, length;   // pixels per block, floats of the sums of a block
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

// sums[i] = offset + factor * (values[i] + .. + values[i + window - 1])
CONVNET_INLINE void window_sums(std::int64_t length, int window, const float* __restrict values,
                                float offset, float factor, float* __restrict sums) {
  if (window == 5) {
    for (std::int64_t i = 0; i < length; ++i) {
      sums[i] = offset + factor * window_sum<5>(values + i);
    }
  } else if (window == 3) {
    for (std::int64_t i = 0; i < length; ++i) {
      sums[i] = offset + factor * window_sum<3>(values + i);
    }
  } else {
    for (std::int64_t i = 0; i < length; ++i) sums[i] = values[i];
    for (int t = 1; t < window; ++t) {
      for (std::int64_t i = 0; i < length; ++i) sums[i] += values[i + t];
    }
    for (std::int64_t i = 0; i < length; ++i) sums[i] = offset + factor * sums[i];
  }
}

// s = s^-beta and, unless null, next = s^(-beta-1).
template <class Power>
CONVNET_INLINE void apply_power(std::int64_t length, float* __restrict s, float* __restrict next,
                                const Power& power) {
  if (next == nullptr) {
    CONVNET_SIMD
    for (std::int64_t i = 0; i < length; ++i) s[i] = power(s[i]);
  } else {
    CONVNET_SIMD
    for (std::int64_t i = 0; i < length; ++i) {
      const float p = power(s[i]);
      next[i] = p / s[i];
      s[i] = p;
    }
  }
}

struct PowerThreeQuarters {
  CONVNET_INLINE float operator()(float s) const {
    const float root = std::sqrt(s);
    return 1.0f / (root * std::sqrt(root));
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

CONVNET_INLINE void powers(std::int64_t length, float beta, float* s, float* next) {
  if (beta == 0.75f) {
    apply_power(length, s, next, PowerThreeQuarters{});
  } else if (beta == 0.5f) {
    apply_power(length, s, next, PowerHalf{});
  } else if (beta == 1.0f) {
    apply_power(length, s, next, PowerOne{});
  } else {
    apply_power(length, s, next, PowerAny{split_exponent(beta)});
  }
}

// rows = pixels * groups; `squares` holds zeros wherever nothing is written here.
CONVNET_CLONES void fprop_block(const LrnShape& shape, const Line& line, std::int64_t rows,
                                const float* __restrict x, float* __restrict y,
                                float* __restrict squares, float* __restrict s) {
  const std::int64_t channels = line.channels, step = line.step, length = rows * step;
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * channels;
    float* out = squares + row * step + line.left;
    for (std::int64_t c = 0; c < channels; ++c) out[c] = in[c] * in[c];
  }
  window_sums(length, line.window, squares, shape.k, shape.alpha, s);
  powers(length, shape.beta, s, nullptr);
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * channels;
    const float* factor = s + row * step;
    float* out = y + row * channels;
    for (std::int64_t c = 0; c < channels; ++c) out[c] = in[c] * factor[c];
  }
}

CONVNET_CLONES void bprop_block(const LrnShape& shape, const Line& line, std::int64_t rows,
                                const float* __restrict x, const float* __restrict dy,
                                float* __restrict dx, float* __restrict squares,
                                float* __restrict terms, float* __restrict s,
                                float* __restrict next) {
  const std::int64_t channels = line.channels, step = line.step, length = rows * step;
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * channels;
    float* out = squares + row * step + line.left;
    for (std::int64_t c = 0; c < channels; ++c) out[c] = in[c] * in[c];
  }
  window_sums(length, line.window, squares, shape.k, shape.alpha, s);
  powers(length, shape.beta, s, next);
  // The windows that hold i are those of i - right .. i + left: the mirror image.
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * channels;
    const float* grad = dy + row * channels;
    const float* factor = next + row * step;
    float* out = terms + row * step + line.right;
    for (std::int64_t c = 0; c < channels; ++c) out[c] = grad[c] * in[c] * factor[c];
  }
  window_sums(length, line.window, terms, 0.0f, 2.0f * shape.alpha * shape.beta, next);
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * channels;
    const float* grad = dy + row * channels;
    const float* factor = s + row * step;
    const float* sums = next + row * step;
    float* out = dx + row * channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      out[c] = grad[c] * factor[c] - in[c] * sums[c];
    }
  }
}

// run(first pixel, pixels, scratch) for the blocks of the tensor; scratch is `arrays` zero-filled
// arrays of line.storage() floats, reused from block to block.
template <class Run>
void for_blocks(const LrnShape& shape, const Line& line, std::size_t arrays, const Run& run) {
  const std::int64_t blocks_per_task =
      std::max<std::int64_t>(1, 2 * kChunk / (line.pixels * shape.c));
  parallel_chunks(shape.pixels, blocks_per_task * line.pixels,
                  [&](std::int64_t first, std::int64_t pixels) {
    std::vector<float> scratch(arrays * static_cast<std::size_t>(line.storage()), 0.0f);
    for (std::int64_t m = 0; m < pixels; m += line.pixels) {
      run(first + m, std::min(line.pixels, pixels - m), scratch.data());
    }
  });
}

}  // namespace

void lrn_fprop(const LrnShape& shape, const float* x, float* y, Stream) {
  const Line line = make_line(shape);
  for_blocks(shape, line, 2, [&](std::int64_t first, std::int64_t pixels, float* scratch) {
    const std::int64_t at = first * shape.c;
    fprop_block(shape, line, pixels * line.groups, x + at, y + at, scratch,
                scratch + line.storage());
  });
}

void lrn_bprop(const LrnShape& shape, const float* x, const float* dy, float* dx, Stream) {
  const Line line = make_line(shape);
  for_blocks(shape, line, 4, [&](std::int64_t first, std::int64_t pixels, float* scratch) {
    const std::int64_t at = first * shape.c, size = line.storage();
    bprop_block(shape, line, pixels * line.groups, x + at, dy + at, dx + at, scratch,
                scratch + size, scratch + 2 * size, scratch + 3 * size);
  });
}

}  // namespace convnet
