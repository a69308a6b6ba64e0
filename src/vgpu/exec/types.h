// From PTX types to those of C++: which instance of a handler.
#pragma once
#include <cstdint>
#include <type_traits>

#include "warp.h"

namespace vgpu {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;

// d = operation(a), operation(a, b) or operation(a, b, c), by how many it takes.
template <auto operation, typename T>
void apply(Warp& w, const Ins& i) {
  T* const d = reg<T>(w, i.d);
  const T* const a = reg<T>(w, i.a);
  using Operation = decltype(operation);
  if constexpr (std::is_invocable_v<Operation, T>) {
    write_lanes(w, d, [&](int l) { return static_cast<T>(operation(a[l])); });
  } else if constexpr (std::is_invocable_v<Operation, T, T>) {
    const T* const b = reg<T>(w, i.b);
    write_lanes(w, d, [&](int l) { return static_cast<T>(operation(a[l], b[l])); });
  } else {
    const T *const b = reg<T>(w, i.b), *const c = reg<T>(w, i.c);
    write_lanes(w, d, [&](int l) { return static_cast<T>(operation(a[l], b[l], c[l])); });
  }
}

// choose(T()) for the type of the instruction; null where the operation is not for such.
template <typename F>
Handler for_integers(Type type, F choose) {
  switch (type) {
    case Type::b16:
    case Type::u16:
      return choose(u16());
    case Type::s16:
      return choose(s16());
    case Type::b32:
    case Type::u32:
      return choose(u32());
    case Type::s32:
      return choose(s32());
    case Type::b64:
    case Type::u64:
      return choose(u64());
    case Type::s64:
      return choose(s64());
    default:
      return nullptr;
  }
}
template <typename F>
Handler for_floats(Type type, F choose) {
  if (type == Type::f32) return choose(float());
  if (type == Type::f64) return choose(double());
  return nullptr;
}
// Without regard to what the bits mean.
template <typename F>
Handler for_bits(Type type, F choose) {
  switch (size_of(type)) {
    case 1:
    case 2:
      return choose(u16());
    case 8:
      return choose(u64());
    default:
      return choose(u32());
  }
}

template <auto operation>
Handler integers(Type type) {
  return for_integers(type, [](auto t) -> Handler { return apply<operation, decltype(t)>; });
}
template <auto operation>
Handler floats(Type type) {
  return for_floats(type, [](auto t) -> Handler { return apply<operation, decltype(t)>; });
}
template <auto operation>
Handler numbers(Type type) {
  const Handler handler = floats<operation>(type);
  return handler ? handler : integers<operation>(type);
}
template <auto operation>
Handler bits(Type type) {
  return for_bits(type, [](auto t) -> Handler { return apply<operation, decltype(t)>; });
}

}  // namespace vgpu
