// What activations and their gradients are stored as: float32, or bfloat16, which is the upper half
// of a float32. Operations read either, compute in float32, and round once when they write: to
// nearest, ties to even.
#pragma once

#include <cstdint>

// Compiles an operation of the contract for either type, at the end of its file.
#define CONVNET_FOR_BOTH_TYPES(function)              \
  template decltype(function<float>) function<float>; \
  template decltype(function<Bfloat16>) function<Bfloat16>

namespace convnet {

struct Bfloat16 {
  std::uint16_t bits;
};

enum class Storage { kFloat32, kBfloat16 };

template <class T>
constexpr Storage storage_of = Storage::kFloat32;
template <>
constexpr Storage storage_of<Bfloat16> = Storage::kBfloat16;

}  // namespace convnet
