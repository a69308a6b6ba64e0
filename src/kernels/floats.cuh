// One or four neighbouring elements, as floats, so that a kernel is written once for both: four where
// arrays are aligned to as many (one access, a quarter of the index arithmetic), else one.
#pragma once

#include "device/vectors.h"

namespace convnet {

template <int kCount>
struct Floats {
  static_assert(kCount == 1 || kCount == 4, "Floats: 1 or 4");
  float v[kCount];
};

template <int kCount, class T>
__device__ inline Floats<kCount> load_floats(const T* x) {
  if constexpr (kCount == 4) {
    const float4 four = load4(x);
    return {{four.x, four.y, four.z, four.w}};
  } else {
    return {{load(x)}};
  }
}

template <int kCount, class T>
__device__ inline void store_floats(T* x, const Floats<kCount>& values) {
  if constexpr (kCount == 4) {
    store4(x, make_float4(values.v[0], values.v[1], values.v[2], values.v[3]));
  } else {
    store(x, values.v[0]);
  }
}

template <int kCount>
__device__ inline Floats<kCount> all_floats(float value) {
  Floats<kCount> result;
  for (int i = 0; i < kCount; ++i) result.v[i] = value;
  return result;
}

// What is left of them where they are stored as T.
template <class T, int kCount>
__device__ inline Floats<kCount> rounded_to(Floats<kCount> values) {
  for (int i = 0; i < kCount; ++i) values.v[i] = rounded_to<T>(values.v[i]);
  return values;
}

}  // namespace convnet
