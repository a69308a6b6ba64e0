// bfloat16 arrays as float32 in scratch memory, for products that only float32 has.
#pragma once

#include "onednn.h"

namespace convnet {

inline const float* widened(const Bfloat16* x, std::int64_t count, Scratch& scratch) {
  float* wide = scratch.take_array<float>(count);
  to_float32(count, x, wide, nullptr);
  return wide;
}

// The same layer of float32 arrays.
template <class Shape>
Shape in_float32(Shape shape) {
  shape.storage = Storage::kFloat32;
  return shape;
}

// In what it multiplies: numbers that were rounded to bfloat16 are not rounded again.
inline Precision in_float32(Precision precision) {
  return precision == Precision::kBf16 ? Precision::kFp32 : precision;
}

}  // namespace convnet
