// LRN      s = k + alpha * (window sum of squares),  y = x s^-3/4. A vector holds neighbouring
//          channels; a window reaches into the vectors before and after it, from which shifted
//          ones are made in registers. Zeros stand for channels beyond the group. Backward follows
//          one vector behind, as its window needs the terms of the next one.
// Limits:  about 1 (fprop), 1.5 (bprop) cycles an element with 16 lanes: memory is slower.
// A part of vector_kernels.h, which says how it is included.

// Lanes kSkip .. kSkip + kLanes - 1 of `a` followed by `b`.
template <int kSkip, int... kLane>
inline Vec slide_lanes(Vec a, Vec b, std::integer_sequence<int, kLane...>) {
  return __builtin_shuffle(a, b, IntVec{(kLane + kSkip)...});
}
template <int kSkip>
inline Vec slide(Vec a, Vec b) {
  return slide_lanes<kSkip>(a, b, std::make_integer_sequence<int, kLanes>());
}

// Sums over windows of 3 or 5 channels, vector after vector of a group.
template <int kWindow>
struct Window {
  static_assert(kWindow == 3 || kWindow == 5, "Window: 3 or 5");
  Vec before;  // 3: the last vector; 5: its sums of neighbours i and i + 1

  // `first` is the first vector of the group.
  explicit Window(Vec first) : before(kWindow == 5 ? slide<1>(Vec{}, first) : Vec{}) {}

  // For the lanes of `here`; `after` is the next vector, or zeros.
  Vec next(Vec here, Vec after) {
    if constexpr (kWindow == 5) {
      const Vec pairs = here + slide<1>(here, after);
      const Vec sum = slide<kLanes - 2>(before, pairs) + pairs + slide<2>(here, after);
      before = pairs;
      return sum;
    } else {
      const Vec sum = slide<kLanes - 1>(before, here) + here + slide<1>(here, after);
      before = here;
      return sum;
    }
  }
};

#if defined(__x86_64__)
// s^(-1/2), approximately: to 11 bits or more.
inline Vec inverse_root(Vec s) {
#if CONVNET_LANES == 16
  return (Vec)_mm512_maskz_rsqrt14_ps(0xffff, (__m512)s);
#elif CONVNET_LANES == 8
  return (Vec)_mm256_rsqrt_ps((__m256)s);
#else
  return (Vec)_mm_rsqrt_ps((__m128)s);
#endif
}

// s, but no more than the largest float; a NaN stays.
inline Vec finite(Vec s) {
  const Vec largest = 3.40282347e38f - Vec{};
#if CONVNET_LANES == 16
  return (Vec)_mm512_maskz_min_ps(0xffff, (__m512)largest, (__m512)s);
#elif CONVNET_LANES == 8
  return (Vec)_mm256_min_ps((__m256)largest, (__m256)s);
#else
  return (Vec)_mm_min_ps((__m128)largest, (__m128)s);
#endif
}

// s^(-3/4), and s^(-7/4) for kNext. m approximates s^(-1/4) to 10 bits, and e = 1 - s m^4 says how
// far off it is: s^(-3/4) = m^3 (1 - e)^(-3/4), 1 / s = m^4 / (1 - e), of which three terms each
// are enough.
template <bool kNext>
inline void powers(Vec s, Vec* main, Vec* next) {
  s = finite(s);
  const Vec root = inverse_root(s);
  const Vec m = root * inverse_root(root);
  const Vec m2 = m * m;
  const Vec e = 1.0f - (s * m2) * m2;
  const Vec m3 = m2 * m;
  *main = m3 + m3 * (e * (0.65625f * e + 0.75f));
  if constexpr (kNext) *next = *main * (m2 * m2) * (e * e + e + 1.0f);
}
#else
// s^(-3/4) as power_minus_three_quarters() in elementary.h, and s^(-7/4).
template <bool kNext>
inline void powers(Vec s, Vec* main, Vec* next) {
  constexpr float kLargest = 3.40282347e38f;
  s = kLargest < s ? kLargest - Vec{} : s;
  const Vec y = (Vec)(0x4f582000u - ((BitVec)s >> 2));
  const Vec y2 = y * y;
  const Vec r = 1.0f - s * (y2 * y2);
  Vec p = 0.525665669f * r + 0.549691488f;
  p = p * r + 0.56387939f;
  p = p * r + 0.601452035f;
  p = p * r + 0.656250134f;
  p = p * r + 0.750000218f;
  p = p * r + 1.0f;
  *main = (y2 * y) * p;
  if constexpr (kNext) *next = *main / s;
}
#endif

template <int kWindow, bool kStream, class T>
inline void lrn_fprop_rows(const LrnRun& run, std::int64_t rows, const T* x, T* y) {
  const int vectors = run.channels / kLanes;
  const float k = run.k, alpha = run.alpha;
  for (std::int64_t row = 0; row < rows; ++row) {
    Vec value = load(x), square = value * value;
    Window<kWindow> window(square);
    for (int v = 0; v < vectors; ++v) {
      Vec next_value{};
      if (v + 1 < vectors) next_value = load(x + kLanes);
      const Vec next_square = next_value * next_value;
      Vec main, none;
      powers<false>(k + alpha * window.next(square, next_square), &main, &none);
      put<kStream>(y, value * main);
      value = next_value;
      square = next_square;
      x += kLanes;
      y += kLanes;
    }
  }
}

template <int kWindow, bool kStream, class T>
inline void lrn_bprop_rows(const LrnRun& run, std::int64_t rows, const T* x, const T* dy, T* dx) {
  const int vectors = run.channels / kLanes;
  const float k = run.k, alpha = run.alpha, factor = run.beta_factor;
  const bool relu_mask = run.relu_mask;
  const auto finish = [&](T* to, Vec value, Vec direct, Vec sum) {
    Vec result = direct - factor * value * sum;
    if (relu_mask) result = value <= 0.0f ? Vec{} : result;
    put<kStream>(to, result);
  };
  for (std::int64_t row = 0; row < rows; ++row) {
    Vec value = load(x), square = value * value;
    Window<kWindow> window(square), terms(Vec{});
    Vec last_value{}, last_direct{}, last_term{};
    for (int v = 0; v < vectors; ++v) {
      Vec next_value{};
      if (v + 1 < vectors) next_value = load(x + kLanes);
      const Vec next_square = next_value * next_value, grad = load(dy);
      Vec main, next;
      powers<true>(k + alpha * window.next(square, next_square), &main, &next);
      const Vec term = grad * value * next;
      if (v == 0) {
        terms = Window<kWindow>(term);
      } else {
        finish(dx - kLanes, last_value, last_direct, terms.next(last_term, term));
      }
      last_value = value;
      last_direct = grad * main;
      last_term = term;
      value = next_value;
      square = next_square;
      x += kLanes;
      dy += kLanes;
      dx += kLanes;
    }
    finish(dx - kLanes, last_value, last_direct, terms.next(last_term, Vec{}));
  }
}

template <class T>
void lrn_fprop(const LrnRun& run, int n, std::int64_t rows, const T* x, T* y) {
  const bool stream = run.stream && can_stream(y);
  if (stream) {
    n == 5 ? lrn_fprop_rows<5, true>(run, rows, x, y) : lrn_fprop_rows<3, true>(run, rows, x, y);
    finish_stores();
  } else {
    n == 5 ? lrn_fprop_rows<5, false>(run, rows, x, y) : lrn_fprop_rows<3, false>(run, rows, x, y);
  }
}

template <class T>
void lrn_bprop(const LrnRun& run, int n, std::int64_t rows, const T* x, const T* dy, T* dx) {
  if (run.stream && can_stream(dx)) {
    n == 5 ? lrn_bprop_rows<5, true>(run, rows, x, dy, dx)
           : lrn_bprop_rows<3, true>(run, rows, x, dy, dx);
    finish_stores();
  } else {
    n == 5 ? lrn_bprop_rows<5, false>(run, rows, x, dy, dx)
           : lrn_bprop_rows<3, false>(run, rows, x, dy, dx);
  }
}
