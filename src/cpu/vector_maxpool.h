// Max-pool one vector of channels at a time, over the window (forward) or over the windows that
//          hold a pixel (backward). Where the vectors do not fill the channels, the last one
//          overlaps the one before and writes the same again.
// Limits:  about 0.3 cycles an element with 16 lanes: memory is slower.
// A part of vector_kernels.h, which says how it is included.

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
