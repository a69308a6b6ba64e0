// Local response normalization across channels (paper, section 3.3).
//   s_i = k + alpha * sum_{j in window(i)} x_j^2,   window(i) = i - n/2 .. i - n/2 + n - 1
//   y_i = x_i * s_i^-beta
//   dx_i = dy_i s_i^-beta - 2 alpha beta x_i sum_{j : i in window(j)} dy_j x_j s_j^(-beta-1)
// both windows clipped to the group of i.
//
// Method: where a window has 3 or 5 channels, beta is 3/4 and vectors fill the groups, in registers
// (vector_kernels.h). Elsewhere by lines: the squares of a few pixels are laid out in a line, with
// n - 1 zeros between one group and the next, so that no window needs clipping. A window sum is
// then n shifted additions over the whole line, whatever C and the groups are, and s^-beta one more
// pass. The line stays in the L1 cache. The backward pass computes s again: cheaper than reading
// it.
//
// Cost: one read and one write per element (backward: two and one): limited by memory, by lines
// about as much by arithmetic; the next block is prefetched meanwhile.
#include "lrn.h"

#include "elementary.h"
#include "parallel.h"

namespace convnet {
namespace {

constexpr std::int64_t kLine = 1024;  // floats; four such arrays fit in the L1 cache
constexpr std::int64_t kPiece = 256;  // floats computed between two rounds of prefetching
constexpr float kLargest = std::numeric_limits<float>::max();

using Line = LrnLine;

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

// Four arrays of line.storage() floats.
struct Scratch {
  Scratch(const Line& line, float* memory)
      : squares(memory),
        terms(squares + line.storage()),
        power(terms + line.storage()),
        next(power + line.storage()) {}
  float *squares, *terms, *power, *next;
};

// A block of `rows` = pixels * groups rows of line.channels floats, and how many floats of the
// tensor follow it.
struct Block {
  std::int64_t rows, following;
};

// Asks for floats first .. first + count - 1 of those that follow the block, to arrive while the
// arithmetic of this one goes on.
template <class T>
CONVNET_INLINE void prefetch_next(const Block& block, const Line& line, const T* p,
                                  std::int64_t first, std::int64_t count) {
#if defined(__GNUC__)
  const T* next = p + block.rows * line.channels;
  const std::int64_t last = std::min(first + count, block.following);
  for (std::int64_t i = first; i < last; i += 64 / sizeof(T)) __builtin_prefetch(next + i);
#endif
}

template <class T>
CONVNET_INLINE void square_rows(const Block& block, const Line& line, const T* __restrict x,
                                float* __restrict squares) {
  for (std::int64_t row = 0; row < block.rows; ++row) {
    const T* in = x + row * line.channels;
    float* out = squares + row * line.step + line.left;
    for (std::int64_t c = 0; c < line.channels; ++c) {
      out[c] = read(in[c]) * read(in[c]);
    }
  }
}

template <class T>
CONVNET_INLINE void fprop_block(const LrnShape& shape, const Line& line, const Block& block,
                                const Scratch& scratch, const T* __restrict x, T* __restrict y) {
  square_rows(block, line, x, scratch.squares);
  const std::int64_t length = block.rows * line.step;
  for (std::int64_t i = 0; i < length; i += kPiece) {
    const std::int64_t size = std::min(kPiece, length - i);
    prefetch_next(block, line, x, i, size);
    powers<false>(shape, size, line.window, scratch.squares + i, scratch.power + i,
                  scratch.next + i);
  }
  for (std::int64_t row = 0; row < block.rows; ++row) {
    const T* in = x + row * line.channels;
    const float* factor = scratch.power + row * line.step;
    T* out = y + row * line.channels;
    for (std::int64_t c = 0; c < line.channels; ++c) write(out + c, read(in[c]) * factor[c]);
  }
}

// terms = dy x s^(-beta-1), where the windows that hold i are those of i - right .. i + left: the
// mirror image of the forward window, so its sum starts `right` and not `left` before i.
template <class T>
CONVNET_INLINE void term_rows(const Block& block, const Line& line, const T* __restrict x,
                              const T* __restrict dy, const Scratch& scratch) {
  for (std::int64_t row = 0; row < block.rows; ++row) {
    const T* in = x + row * line.channels;
    const T* grad = dy + row * line.channels;
    const float* factor = scratch.next + row * line.step;
    float* __restrict out = scratch.terms + row * line.step + line.right;
    for (std::int64_t c = 0; c < line.channels; ++c) {
      out[c] = read(grad[c]) * read(in[c]) * factor[c];
    }
  }
}

template <class T>
CONVNET_INLINE void bprop_block(const LrnShape& shape, const Line& line, const Block& block,
                                const Scratch& scratch, const T* __restrict x,
                                const T* __restrict dy, T* __restrict dx) {
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
    const T* in = x + row * line.channels;
    const T* grad = dy + row * line.channels;
    const float* power = scratch.power + row * line.step;
    const float* sums = scratch.next + row * line.step;
    T* out = dx + row * line.channels;
    for (std::int64_t c = 0; c < line.channels; ++c) {
      write(out + c, read(grad[c]) * power[c] - factor * read(in[c]) * sums[c]);
    }
  }
}

template <class T>
CONVNET_INLINE void mask_block(std::int64_t count, const T* __restrict x, T* __restrict dx) {
  for (std::int64_t i = 0; i < count; ++i) dx[i] = read(x[i]) <= 0.0f ? T{} : dx[i];
}

// run(block, offset of the block) for all of the pixels.
template <class Run>
void for_blocks(const LrnShape& shape, const Line& line, std::int64_t pixels, const Run& run) {
  for (std::int64_t m = 0; m < pixels; m += line.pixels) {
    const std::int64_t size = std::min(line.pixels, pixels - m);
    run(Block{size * line.groups, (pixels - m - size) * shape.c}, m * shape.c);
  }
}

template <class T>
const VectorKernels<T>* kernels_of(const LrnShape& shape) {
  const bool usual = shape.beta == 0.75f && (shape.n == 3 || shape.n == 5);
  return usual ? kernels_for<T>(shape.c / shape.groups, true) : nullptr;
}

// task(LrnPixels, first pixel, number of pixels) for all pixels.
template <class T, class Task>
void for_pixels(const LrnShape& shape, const Task& task) {
  const bool stream = std::int64_t{shape.pixels} * shape.c * 4 > kCacheBytes;
  const std::int64_t pixels_per_task = std::max<std::int64_t>(1, 2 * kChunk / shape.c);
  parallel_chunks(shape.pixels, pixels_per_task, [&](std::int64_t first, std::int64_t pixels) {
    task(LrnPixels<T>(shape, stream), first * shape.c, pixels);
  });
}

}  // namespace

template <class T>
LrnPixels<T>::LrnPixels(const LrnShape& shape, bool stream)
    : shape_(shape), kernels_(kernels_of<T>(shape)), line_(make_line(shape)) {
  run_.k = shape.k;
  run_.alpha = shape.alpha;
  run_.beta_factor = 2.0f * shape.alpha * shape.beta;
  run_.channels = shape.c / shape.groups;
  run_.relu_mask = false;
  run_.stream = stream;
  if (kernels_ == nullptr) memory_.resize(4 * static_cast<std::size_t>(line_.storage()), 0.0f);
}

template <class T>
void LrnPixels<T>::fprop(std::int64_t pixels, const T* x, T* y) const {
  if (kernels_ != nullptr) {
    kernels_->lrn_fprop(run_, shape_.n, pixels * shape_.groups, x, y);
    return;
  }
  const Scratch scratch(line_, memory_.data());
  for_blocks(shape_, line_, pixels, [&](const Block& block, std::int64_t at) {
    vectorized<fprop_block<T>>(shape_, line_, block, scratch, x + at, y + at);
  });
}

template <class T>
void LrnPixels<T>::bprop(std::int64_t pixels, const T* x, const T* dy, bool relu_mask,
                         T* dx) const {
  if (kernels_ != nullptr) {
    LrnRun run = run_;
    run.relu_mask = relu_mask;
    kernels_->lrn_bprop(run, shape_.n, pixels * shape_.groups, x, dy, dx);
    return;
  }
  const Scratch scratch(line_, memory_.data());
  for_blocks(shape_, line_, pixels, [&](const Block& block, std::int64_t at) {
    vectorized<bprop_block<T>>(shape_, line_, block, scratch, x + at, dy + at, dx + at);
    if (relu_mask) vectorized<mask_block<T>>(block.rows * line_.channels, x + at, dx + at);
  });
}

template <class T>
void lrn_fprop(const LrnShape& shape, const T* x, T* y, Stream) {
  for_pixels<T>(shape, [&](const LrnPixels<T>& lrn, std::int64_t at, std::int64_t pixels) {
    lrn.fprop(pixels, x + at, y + at);
  });
}

template <class T>
void lrn_bprop(const LrnShape& shape, const T* x, const T* dy, T* dx, Stream) {
  for_pixels<T>(shape, [&](const LrnPixels<T>& lrn, std::int64_t at, std::int64_t pixels) {
    lrn.bprop(pixels, x + at, dy + at, false, dx + at);
  });
}

template class LrnPixels<float>;
template class LrnPixels<Bfloat16>;
CONVNET_FOR_BOTH_TYPES(lrn_fprop);
CONVNET_FOR_BOTH_TYPES(lrn_bprop);

}  // namespace convnet
