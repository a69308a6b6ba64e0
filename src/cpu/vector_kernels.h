// The kernels of vectors.h over vectors of CONVNET_LANES floats, in a namespace CONVNET_TARGET.
// Included several times, by vector_kernels.cpp, between pragmas that set the instruction set; so
// nothing else may be included here, and whatever is called must be here too.
//
// LRN      s = k + alpha * (window sum of squares),  y = x s^-3/4. A vector holds neighbouring
//          channels; a window reaches into the vectors before and after it, from which shifted
//          ones are made in registers. Zeros stand for channels beyond the group. Backward follows
//          one vector behind, as its window needs the terms of the next one.
// Max-pool one vector of channels at a time, over the window (forward) or over the windows that
//          hold a pixel (backward). Where the vectors do not fill the channels, the last one
//          overlaps the one before and writes the same again.
// Limits:  about 1 (LRN fprop), 1.5 (LRN bprop), 0.3 (both pools) cycles an element with 16 lanes:
//          memory is slower.

namespace convnet {
namespace {
namespace CONVNET_TARGET {

constexpr int kLanes = CONVNET_LANES;
typedef float Vec __attribute__((vector_size(4 * CONVNET_LANES)));
typedef std::int32_t IntVec __attribute__((vector_size(4 * CONVNET_LANES)));
typedef std::uint32_t BitVec __attribute__((vector_size(4 * CONVNET_LANES)));
typedef std::uint8_t ByteVec __attribute__((vector_size(CONVNET_LANES)));
typedef std::uint16_t HalfVec __attribute__((vector_size(2 * CONVNET_LANES)));

inline Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }

// A bfloat16 is the upper half of a float32; rounding is that of rounded() in elements.h.
inline Vec load(const Bfloat16* p) {
#if defined(__x86_64__) && CONVNET_LANES == 16
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return (Vec)((BitVec)_mm512_maskz_cvtepu16_epi32(0xffff, halves) << 16);
#elif defined(__x86_64__) && CONVNET_LANES == 8
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (Vec)((BitVec)_mm256_cvtepu16_epi32(halves) << 16);
#elif defined(__x86_64__)
  const __m128i halves = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return (Vec)_mm_unpacklo_epi16(_mm_setzero_si128(), halves);
#else
  HalfVec halves;
  __builtin_memcpy(&halves, p, sizeof halves);
  return (Vec)(__builtin_convertvector(halves, BitVec) << 16);
#endif
}
#if defined(__x86_64__) && CONVNET_LANES == 16
typedef __m256i Halves;
#elif defined(__x86_64__)
typedef __m128i Halves;  // of 4 lanes in the lower half
#else
typedef HalfVec Halves;
#endif
inline Halves round_to_halves(Vec v) {
  const BitVec bits = (BitVec)v;
  const BitVec nearest = bits + 0x7fffu + (bits >> 16 & 1u);
  const BitVec half = (nearest | (BitVec)(v != v)) >> 16;
#if defined(__x86_64__) && CONVNET_LANES == 16
  return _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)half);
#elif defined(__x86_64__) && CONVNET_LANES == 8
  const __m256i all = (__m256i)half;
  return _mm_packus_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
#elif defined(__x86_64__)
  const HalfVec halves = __builtin_convertvector(half, HalfVec);
  return _mm_set_epi64x(0, (std::int64_t)halves);
#else
  return __builtin_convertvector(half, HalfVec);
#endif
}
inline void store(Bfloat16* p, Vec v) {
  const Halves halves = round_to_halves(v);
  __builtin_memcpy(p, &halves, 2 * kLanes);
}

// Around the cache; p is aligned to a vector.
inline void store_around(float* p, Vec v) {
#if defined(__x86_64__) && CONVNET_LANES == 16
  _mm512_stream_ps(p, (__m512)v);
#elif defined(__x86_64__) && CONVNET_LANES == 8
  _mm256_stream_ps(p, (__m256)v);
#elif defined(__x86_64__)
  _mm_stream_ps(p, (__m128)v);
#else
  store(p, v);
#endif
}
inline void store_around(Bfloat16* p, Vec v) {
#if defined(__x86_64__) && CONVNET_LANES == 16
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), round_to_halves(v));
#elif defined(__x86_64__) && CONVNET_LANES == 8
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), round_to_halves(v));
#else
  store(p, v);
#endif
}

// Bytes to integers and back; the compiler would go through memory, lane by lane.
inline IntVec widen(const std::uint8_t* p) {
#if defined(__x86_64__) && CONVNET_LANES == 16
  return (IntVec)_mm512_maskz_cvtepu8_epi32(0xffff,
                                            _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__x86_64__) && CONVNET_LANES == 8
  return (IntVec)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#elif defined(__x86_64__)
  int four;
  __builtin_memcpy(&four, p, sizeof four);
  const __m128i zero = _mm_setzero_si128();
  return (IntVec)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero), zero);
#else
  ByteVec bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(bytes, IntVec);
#endif
}
inline void narrow(std::uint8_t* p, IntVec v) {
#if defined(__x86_64__) && CONVNET_LANES == 16
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v));
#elif defined(__x86_64__) && CONVNET_LANES == 8
  const __m256i all = (__m256i)v;
  const __m128i words =
      _mm_packs_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
#elif defined(__x86_64__)
  const __m128i words = _mm_packs_epi32((__m128i)v, (__m128i)v);
  const int four = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
  __builtin_memcpy(p, &four, sizeof four);
#else
  const ByteVec bytes = __builtin_convertvector(v, ByteVec);
  __builtin_memcpy(p, &bytes, sizeof bytes);
#endif
}

template <class T>
inline bool can_stream(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p) % (sizeof(T) * kLanes) == 0;
}

inline void finish_stores() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// ---- LRN ---------------------------------------------------------------------------------------

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

template <bool kStream, class T>
inline void put(T* p, Vec v) {
  if constexpr (kStream) {
    store_around(p, v);
  } else {
    store(p, v);
  }
}

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

// ---- max-pool ----------------------------------------------------------------------------------

struct Best {
  Vec value;
  IntVec code;

  void offer(Vec x, std::int32_t new_code) {
    // Greater, or the first NaN.
#if defined(__x86_64__) && CONVNET_LANES == 16
    const __mmask16 number = _mm512_cmp_ps_mask((__m512)value, (__m512)value, _CMP_ORD_Q);
    const __mmask16 wins = _mm512_mask_cmp_ps_mask(number, (__m512)x, (__m512)value, _CMP_NLE_UQ);
    value = (Vec)_mm512_mask_mov_ps((__m512)value, wins, (__m512)x);
    code = (IntVec)_mm512_mask_mov_epi32((__m512i)code, wins, _mm512_set1_epi32(new_code));
#else
    const IntVec stays = (x <= value) | (value != value);
    value = stays ? value : x;
    code = stays ? code : new_code - IntVec{};
#endif
  }
};

// The window's rows x cols, whose first element lies at rows[0][first].
template <int kSize, class T>
inline Best winner(const T* const* rows, std::int64_t first, int height, int width,
                   std::int64_t step, int code, int code_step) {
  Best best{load(rows[0] + first), code - IntVec{}};
  if constexpr (kSize > 0) {
#pragma GCC unroll 9
    for (int i = 1; i < kSize * kSize; ++i) {
      best.offer(load(rows[i / kSize] + first + i % kSize * step), i);
    }
  } else {
    for (int r = 0; r < height; ++r) {
      for (int s = 0; s < width; ++s) {
        best.offer(load(rows[r] + first + s * step), code + r * code_step + s);
      }
    }
  }
  return best;
}

template <class T>
void maxpool_fprop(const PoolRun<T>& run, T* y, std::uint8_t* argmax) {
  const PoolShape& shape = *run.shape;
  const int channels = shape.c;
  const Span rows = window_span(run.p, shape.stride_h, shape.pad_h, shape.size_h, shape.h);
  const int height = rows.end - rows.begin;
  for (int q = 0; q < shape.q; ++q) {
    const Span cols = window_span(q, shape.stride_w, shape.pad_w, shape.size_w, shape.w);
    const int width = cols.end - cols.begin;
    const int code = (rows.begin - rows.start) * shape.size_w + cols.begin - cols.start;
    const std::int64_t at = std::int64_t{cols.begin} * channels;
    const bool three = height == 3 && width == 3 && shape.size_w == 3 && code == 0;
    for (int c = 0; c < channels; c += kLanes) {
      const int from = c + kLanes <= channels ? c : channels - kLanes;
      const Best best =
          three ? winner<3>(run.rows, at + from, 3, 3, channels, 0, 3)
                : winner<0>(run.rows, at + from, height, width, channels, code, shape.size_w);
      store(y + from, best.value);
      narrow(argmax + from, best.code);
    }
    y += channels;
    argmax += channels;
  }
}

// A window that holds a pixel: where its dy is, and the code that credits the pixel.
struct Holder {
  std::int64_t at;
  int code;
};

template <class T>
inline Vec add_credit(Vec sum, const GatherRun<T>& run, const Holder& holder, int channel) {
  const std::uint8_t* codes = run.argmax + holder.at + channel;
  const Vec grad = load(run.dy + holder.at + channel);
#if defined(__x86_64__) && CONVNET_LANES == 16
  const __mmask16 credited =
      _mm_cmpeq_epi8_mask(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)),
                          _mm_set1_epi8(static_cast<char>(holder.code)));
  return (Vec)_mm512_mask_add_ps((__m512)sum, credited, (__m512)sum, (__m512)grad);
#else
  return sum + (widen(codes) == holder.code ? grad : Vec{});
#endif
}

// One pixel, all channels; kCount is `count`, or 0 for any.
template <int kCount, class T>
inline void gather(const GatherRun<T>& run, int channels, const Holder* holders, int count, T* dx) {
  for (int c = 0; c < channels; c += kLanes) {
    const int from = c + kLanes <= channels ? c : channels - kLanes;
    Vec sum{};
    for (int i = 0; i < (kCount > 0 ? kCount : count); ++i) {
      sum = add_credit(sum, run, holders[i], from);
    }
    store(dx + from, sum);
  }
}

template <class T>
void maxpool_bprop(const GatherRun<T>& run, T* dx) {
  const PoolShape& shape = *run.shape;
  const int channels = shape.c;
  const Span ps = covering_span(run.h, shape.stride_h, shape.pad_h, shape.size_h, shape.p);
  Span qs = covering_span(run.begin, shape.stride_w, shape.pad_w, shape.size_w, shape.q);
  for (int w = run.begin; w < run.end; ++w) {
    // As covering_span(w), without its divisions.
    const int place = w + shape.pad_w;
    while (qs.begin * shape.stride_w + shape.size_w <= place) ++qs.begin;
    while (qs.end < shape.q && qs.end * shape.stride_w <= place) ++qs.end;
    Holder holders[256];  // a window has no more elements, and a pixel no more windows
    int count = 0;
    for (int p = ps.begin; p < ps.end; ++p) {
      const int r = run.h + shape.pad_h - p * shape.stride_h;
      for (int q = qs.begin; q < qs.end; ++q) {
        const int s = w + shape.pad_w - q * shape.stride_w;
        const std::int64_t at = (std::int64_t{p} * shape.q + q) * channels;
        holders[count++] = {at, r * shape.size_w + s};
      }
    }
    if (count == 1) {
      gather<1>(run, channels, holders, count, dx);
    } else if (count == 2) {
      gather<2>(run, channels, holders, count, dx);
    } else if (count == 4) {
      gather<4>(run, channels, holders, count, dx);
    } else {
      gather<0>(run, channels, holders, count, dx);
    }
    dx += channels;
  }
}

template <class T>
constexpr VectorKernels<T> kKernels{kLanes, lrn_fprop<T>, lrn_bprop<T>, maxpool_fprop<T>,
                                    maxpool_bprop<T>};

}  // namespace CONVNET_TARGET
}  // namespace
}  // namespace convnet
