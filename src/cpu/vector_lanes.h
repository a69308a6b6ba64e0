// Vectors of CONVNET_LANES floats: loads and stores, of float32, bfloat16 and bytes. A part of
// vector_kernels.h, which says how it is included.

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

template <bool kStream, class T>
inline void put(T* p, Vec v) {
  if constexpr (kStream) {
    store_around(p, v);
  } else {
    store(p, v);
  }
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
