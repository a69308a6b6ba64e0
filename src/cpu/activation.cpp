// Elementwise functions and their derivatives (the equations stand in ops.h), and dst += src.
//
// relu, tanh, sigmoid, brelu and sqrt save their output: the derivative is simple in it, and the
// input may be overwritten. The others save their input.
//
// Arrays of either type are read to float32 and written from it, in one loop (elements.h).
//
// NaN passes through every function here, so that a diverging run shows.
#include <type_traits>

#include "elementary.h"
#include "ops.h"
#include "parallel.h"

namespace convnet {
namespace {

template <Activation kKind>
CONVNET_INLINE float value(float x, float a, float b) {
  // The order of operands in the comparisons is what keeps NaN.
  if constexpr (kKind == Activation::kRelu) return 0.0f > x ? 0.0f : x;
  if constexpr (kKind == Activation::kTanh) return a * fast_tanh(b * x);
  if constexpr (kKind == Activation::kSigmoid) return fast_sigmoid(x);
  if constexpr (kKind == Activation::kAbs) return std::fabs(x);
  if constexpr (kKind == Activation::kSoftplus) return fast_softplus(x);
  if constexpr (kKind == Activation::kSquare) return x * x;
  if constexpr (kKind == Activation::kSqrt) return std::sqrt(x);
  if constexpr (kKind == Activation::kLog) return fast_log(a + x);
  if constexpr (kKind == Activation::kBrelu) return a < x ? a : (0.0f > x ? 0.0f : x);
  if constexpr (kKind == Activation::kAffine) return a * x + b;
  if constexpr (kKind == Activation::kDrelu) return a * fast_minus_tanh(x / a);
}

// dy times the derivative; y is the output for the functions that save it.
template <Activation kKind>
CONVNET_INLINE float gradient_from_output(float y, float dy, float a, float b) {
  if constexpr (kKind == Activation::kRelu) return y <= 0.0f ? 0.0f : dy;
  if constexpr (kKind == Activation::kTanh) {
    // a b (1 - t^2) with t = y / a, as (1 - t)(1 + t), which does not cancel near |t| = 1.
    const float t = y / a;
    return dy * (a * b * ((1.0f - t) * (1.0f + t)));
  }
  if constexpr (kKind == Activation::kSigmoid) return dy * (y * (1.0f - y));
  if constexpr (kKind == Activation::kBrelu) return y <= 0.0f ? 0.0f : (y >= a ? 0.0f : dy);
  if constexpr (kKind == Activation::kSqrt) return dy / (2.0f * y);
}

template <Activation kKind>
CONVNET_INLINE float gradient_from_input(float x, float dy, float a) {
  if constexpr (kKind == Activation::kAbs) return x > 0.0f ? dy : (x < 0.0f ? -dy : x * dy);
  if constexpr (kKind == Activation::kSoftplus) return dy * fast_sigmoid(x);
  if constexpr (kKind == Activation::kSquare) return 2.0f * dy * x;
  if constexpr (kKind == Activation::kLog) return dy / (a + x);
  if constexpr (kKind == Activation::kAffine) return a * dy;
  if constexpr (kKind == Activation::kDrelu) {
    const float t = fast_tanh(x / a);  // 1 - (1 - t^2)
    return dy * (t * t);
  }
}

constexpr bool saves_output(Activation kind) {
  return kind == Activation::kRelu || kind == Activation::kTanh || kind == Activation::kSigmoid ||
         kind == Activation::kBrelu || kind == Activation::kSqrt;
}

template <Activation kKind, class T>
CONVNET_INLINE void fprop_chunk(float a, float b, std::int64_t count, const T* x, T* y) {
  CONVNET_SIMD
  for (std::int64_t i = 0; i < count; ++i) write(y + i, value<kKind>(read(x[i]), a, b));
}

template <Activation kKind, class T>
CONVNET_INLINE void bprop_chunk(float a, float b, std::int64_t count, const T* saved, const T* dy,
                                T* dx) {
  CONVNET_SIMD
  for (std::int64_t i = 0; i < count; ++i) {
    if constexpr (saves_output(kKind)) {
      write(dx + i, gradient_from_output<kKind>(read(saved[i]), read(dy[i]), a, b));
    } else {
      write(dx + i, gradient_from_input<kKind>(read(saved[i]), read(dy[i]), a));
    }
  }
}

template <class T>
CONVNET_INLINE void add_chunk(std::int64_t count, const T* src, T* dst) {
  CONVNET_SIMD
  for (std::int64_t i = 0; i < count; ++i) write(dst + i, read(dst[i]) + read(src[i]));
}

template <class From, class To>
CONVNET_INLINE void convert_chunk(std::int64_t count, const From* x, To* y) {
  CONVNET_SIMD
  for (std::int64_t i = 0; i < count; ++i) write(y + i, read(x[i]));
}

template <class From, class To>
void convert(std::int64_t count, const From* x, To* y) {
  parallel_chunks(count, kChunk, [=](std::int64_t begin, std::int64_t size) {
    vectorized<convert_chunk<From, To>>(size, x + begin, y + begin);
  });
}

template <Activation kKind>
using Constant = std::integral_constant<Activation, kKind>;

// Calls run(Constant<kind>{}): from the run-time value to the template argument.
template <class Run>
void dispatch(Activation kind, const Run& run) {
  switch (kind) {
    case Activation::kRelu:
      return run(Constant<Activation::kRelu>{});
    case Activation::kTanh:
      return run(Constant<Activation::kTanh>{});
    case Activation::kSigmoid:
      return run(Constant<Activation::kSigmoid>{});
    case Activation::kAbs:
      return run(Constant<Activation::kAbs>{});
    case Activation::kSoftplus:
      return run(Constant<Activation::kSoftplus>{});
    case Activation::kSquare:
      return run(Constant<Activation::kSquare>{});
    case Activation::kSqrt:
      return run(Constant<Activation::kSqrt>{});
    case Activation::kLog:
      return run(Constant<Activation::kLog>{});
    case Activation::kBrelu:
      return run(Constant<Activation::kBrelu>{});
    case Activation::kAffine:
      return run(Constant<Activation::kAffine>{});
    case Activation::kDrelu:
      return run(Constant<Activation::kDrelu>{});
  }
}

}  // namespace

bool activation_saves_output(Activation activation) { return saves_output(activation); }

template <class T>
void activation_fprop(Activation activation, float a, float b, std::int64_t count, const T* x, T* y,
                      Stream) {
  dispatch(activation, [=](auto kind) {
    parallel_chunks(count, kChunk, [=](std::int64_t begin, std::int64_t size) {
      vectorized<fprop_chunk<decltype(kind)::value, T>>(a, b, size, x + begin, y + begin);
    });
  });
}

template <class T>
void activation_bprop(Activation activation, float a, float b, std::int64_t count, const T* saved,
                      const T* dy, T* dx, Stream) {
  dispatch(activation, [=](auto kind) {
    parallel_chunks(count, kChunk, [=](std::int64_t begin, std::int64_t size) {
      vectorized<bprop_chunk<decltype(kind)::value, T>>(a, b, size, saved + begin, dy + begin,
                                                        dx + begin);
    });
  });
}

template <class T>
void accumulate(std::int64_t count, const T* src, T* dst, Stream) {
  parallel_chunks(count, kChunk, [=](std::int64_t begin, std::int64_t size) {
    vectorized<add_chunk<T>>(size, src + begin, dst + begin);
  });
}

void to_bfloat16(std::int64_t count, const float* x, Bfloat16* y, Stream) { convert(count, x, y); }
void to_float32(std::int64_t count, const Bfloat16* x, float* y, Stream) { convert(count, x, y); }

CONVNET_FOR_BOTH_TYPES(activation_fprop);
CONVNET_FOR_BOTH_TYPES(activation_bprop);
CONVNET_FOR_BOTH_TYPES(accumulate);

}  // namespace convnet
