// Elementwise functions and their derivatives (equations in ops.h), dst += src, and conversion.
//   fprop: y[i] = f(x[i]);   bprop: dx[i] = dy[i] f'(saved[i])
//   accumulate: dst[i] = dst[i] + src[i];   to_bfloat16, to_float32: y[i] = x[i]
//
// Tensors:  x, saved, dy, src [count] read; y, dx, dst [count] written; float32 or bfloat16. y may
//           be x, dx may be dy.
// Mapping:  a thread takes four neighbouring elements with one access each; the last count % 4, and
//           every element where an array is not aligned to four, have a thread each. No shared
//           memory, no barriers.
// Limits:   bytes: 8 an element forward, 12 backward and in accumulate, half of it in bfloat16. The
//           functions cost 1 to about 40 instructions an element, which stays below the time of the
//           memory in float32.
//
// relu, tanh, sigmoid, brelu and sqrt save their output: the derivative is simple in it, and the
// input may be overwritten. The others save their input. NaN passes through every function, so that
// a diverging run shows; the order of operands in the comparisons is what keeps it.
#include <type_traits>

#include "device/launch.h"
#include "device/vectors.h"
#include "floats.cuh"
#include "ops.h"
#include "warp.cuh"

namespace convnet {
namespace {

// ---- the functions -----------------------------------------------------------------------------

template <Activation kKind>
struct Value {
  float a, b;
  __device__ float operator()(float x) const {
    if constexpr (kKind == Activation::kRelu) return 0.0f > x ? 0.0f : x;
    if constexpr (kKind == Activation::kTanh) return a * tanhf(b * x);
    if constexpr (kKind == Activation::kSigmoid) return sigmoid(x);
    if constexpr (kKind == Activation::kAbs) return fabsf(x);
    if constexpr (kKind == Activation::kSoftplus) {
      // log(1 + e^x) = max(0, x) + log(1 + e^-|x|)
      return (0.0f > x ? 0.0f : x) + log1pf(expf(-fabsf(x)));
    }
    if constexpr (kKind == Activation::kSquare) return x * x;
    if constexpr (kKind == Activation::kSqrt) return sqrtf(x);
    if constexpr (kKind == Activation::kLog) return logf(a + x);
    if constexpr (kKind == Activation::kBrelu) return a < x ? a : (0.0f > x ? 0.0f : x);
    if constexpr (kKind == Activation::kAffine) return a * x + b;
    if constexpr (kKind == Activation::kDrelu) return x - a * tanhf(x / a);
  }

  // By e^-|x|, which cannot overflow.
  static __device__ float sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
  }
};

template <Activation kKind>
constexpr bool kSavesOutput =
    kKind == Activation::kRelu || kKind == Activation::kTanh || kKind == Activation::kSigmoid ||
    kKind == Activation::kBrelu || kKind == Activation::kSqrt;

// dy times the derivative. `saved` is y for the functions that save their output, else x.
template <Activation kKind>
struct Gradient {
  float a, b;
  __device__ float operator()(float saved, float dy) const {
    if constexpr (kSavesOutput<kKind>) {
      return from_output(saved, dy);
    } else {
      return from_input(saved, dy);
    }
  }

  __device__ float from_output(float y, float dy) const {
    if constexpr (kKind == Activation::kRelu) return y <= 0.0f ? 0.0f : dy;
    if constexpr (kKind == Activation::kTanh) {
      // a b (1 - t^2) with t = y / a, as (1 - t)(1 + t), which does not cancel near |t| = 1.
      const float t = y / a;
      return dy * (a * b * ((1.0f - t) * (1.0f + t)));
    }
    if constexpr (kKind == Activation::kSigmoid) return dy * (y * (1.0f - y));
    if constexpr (kKind == Activation::kBrelu) return y <= 0.0f ? 0.0f : (y >= a ? 0.0f : dy);
    return dy / (2.0f * y);  // kSqrt
  }

  __device__ float from_input(float x, float dy) const {
    if constexpr (kKind == Activation::kAbs) {
      return x > 0.0f ? dy : (x < 0.0f ? -dy : x * dy);  // x * dy: 0, or NaN for NaN
    }
    if constexpr (kKind == Activation::kSoftplus) {
      return dy * Value<Activation::kSigmoid>::sigmoid(x);
    }
    if constexpr (kKind == Activation::kSquare) return 2.0f * dy * x;
    if constexpr (kKind == Activation::kLog) return dy / (a + x);
    if constexpr (kKind == Activation::kAffine) return a * dy;
    const float t = tanhf(x / a);  // kDrelu: 1 - (1 - t^2)
    return dy * (t * t);
  }
};

struct Same {
  __device__ float operator()(float x) const { return x; }
};

// ---- kernels -----------------------------------------------------------------------------------

// Threads 0 .. fours - 1 take elements 4 i .. 4 i + 3; thread fours + j takes element 4 fours + j.
struct Split {
  unsigned fours, threads;
};

Split split(std::int64_t count, bool aligned) {
  const std::int64_t fours = aligned ? count / 4 : 0;
  return {static_cast<unsigned>(fours), static_cast<unsigned>(count - 3 * fours)};
}

template <int kCount, class Function, class X, class Y>
__device__ void map_at(Function function, unsigned i, const X* x, Y* y) {
  Floats<kCount> values = load_floats<kCount>(x + i);
  for (int t = 0; t < kCount; ++t) values.v[t] = function(values.v[t]);
  store_floats(y + i, values);
}

template <class Function, class X, class Y>
__global__ void __launch_bounds__(kBlockThreads)
    map_kernel(Function function, Split split, const X* x, Y* y) {
  const unsigned thread = global_thread();
  if (thread < split.fours) {
    map_at<4>(function, 4 * thread, x, y);
  } else if (thread < split.threads) {
    map_at<1>(function, 3 * split.fours + thread, x, y);
  }
}

template <int kCount, class Function, class T>
__device__ void map_pair_at(Function function, unsigned i, const T* u, const T* v, T* out) {
  const Floats<kCount> first = load_floats<kCount>(u + i);
  Floats<kCount> second = load_floats<kCount>(v + i);
  for (int t = 0; t < kCount; ++t) second.v[t] = function(first.v[t], second.v[t]);
  store_floats(out + i, second);
}

// out[i] = function(u[i], v[i]); out may be u or v.
template <class Function, class T>
__global__ void __launch_bounds__(kBlockThreads)
    map_pair_kernel(Function function, Split split, const T* u, const T* v, T* out) {
  const unsigned thread = global_thread();
  if (thread < split.fours) {
    map_pair_at<4>(function, 4 * thread, u, v, out);
  } else if (thread < split.threads) {
    map_pair_at<1>(function, 3 * split.fours + thread, u, v, out);
  }
}

// ---- launchers ---------------------------------------------------------------------------------

template <class Function, class X, class Y>
void map(OpName op, Function function, std::int64_t count, const X* x, Y* y, Stream stream) {
  const Split parts = split(count, aligned4(x) && aligned4(y));
  launch(op, map_kernel<Function, X, Y>, blocks_for(parts.threads), dim3(kBlockThreads), 0, stream,
         function, parts, x, y);
}

template <class Function, class T>
void map_pair(OpName op, Function function, std::int64_t count, const T* u, const T* v, T* out,
              Stream stream) {
  const Split parts = split(count, aligned4(u) && aligned4(v) && aligned4(out));
  launch(op, map_pair_kernel<Function, T>, blocks_for(parts.threads), dim3(kBlockThreads), 0,
         stream, function, parts, u, v, out);
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

bool activation_saves_output(Activation activation) {
  bool result = false;
  dispatch(activation, [&](auto kind) { result = kSavesOutput<decltype(kind)::value>; });
  return result;
}

template <class T>
void activation_fprop(Activation activation, float a, float b, std::int64_t count, const T* x, T* y,
                      Stream stream) {
  dispatch(activation, [=](auto kind) {
    map("activation_fprop", Value<decltype(kind)::value>{a, b}, count, x, y, stream);
  });
}

template <class T>
void activation_bprop(Activation activation, float a, float b, std::int64_t count, const T* saved,
                      const T* dy, T* dx, Stream stream) {
  dispatch(activation, [=](auto kind) {
    map_pair("activation_bprop", Gradient<decltype(kind)::value>{a, b}, count, saved, dy, dx,
             stream);
  });
}

template <class T>
void accumulate(std::int64_t count, const T* src, T* dst, Stream stream) {
  map_pair("accumulate", Add{}, count, dst, src, dst, stream);
}

CONVNET_FOR_BOTH_TYPES(activation_fprop);
CONVNET_FOR_BOTH_TYPES(activation_bprop);
CONVNET_FOR_BOTH_TYPES(accumulate);

void to_bfloat16(std::int64_t count, const float* x, Bfloat16* y, Stream stream) {
  map("to_bfloat16", Same{}, count, x, y, stream);
}

void to_float32(std::int64_t count, const Bfloat16* x, float* y, Stream stream) {
  map("to_float32", Same{}, count, x, y, stream);
}

}  // namespace convnet
