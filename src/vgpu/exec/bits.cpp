// Moves, bits and fields of bits: PTX ISA, "Logic and Shift Instructions" and, of the integer ones,
// popc, clz, bfe, bfi, prmt; mov with its packing and unpacking of vectors.
#include <algorithm>
#include <bit>
#include <cstring>

#include "types.h"

namespace vgpu {
namespace {

constexpr auto move = [](auto x) { return x; };
constexpr auto bit_and = [](auto x, auto y) { return x & y; };
constexpr auto bit_or = [](auto x, auto y) { return x | y; };
constexpr auto bit_xor = [](auto x, auto y) { return x ^ y; };
constexpr auto bit_not = [](auto x) { return ~x; };

// Shifts by more than the size count as by the size.
template <typename T>
void shift_left(Warp& w, const Ins& i) {
  T* const d = reg<T>(w, i.d);
  const T* const a = reg<T>(w, i.a);
  const u32* const b = reg<u32>(w, i.b);
  write_lanes(w, d,
              [&](int l) { return b[l] >= 8 * sizeof(T) ? T(0) : static_cast<T>(a[l] << b[l]); });
}
template <typename T>
void shift_right(Warp& w, const Ins& i) {
  T* const d = reg<T>(w, i.d);
  const T* const a = reg<T>(w, i.a);
  const u32* const b = reg<u32>(w, i.b);
  constexpr u32 most = 8 * sizeof(T) - 1;
  write_lanes(w, d, [&](int l) {
    return b[l] > most ? static_cast<T>(std::is_signed_v<T> ? a[l] >> most : 0)
                       : static_cast<T>(a[l] >> b[l]);
  });
}

template <typename T>
void insert_field(Warp& w, const Ins& i) {
  T* const d = reg<T>(w, i.d);
  const T *const a = reg<T>(w, i.a), *const b = reg<T>(w, i.b);
  const u32 *const position = reg<u32>(w, i.c), *const lengths = reg<u32>(w, i.e);
  write_lanes(w, d, [&](int l) {
    const unsigned at = position[l] & 255, length = lengths[l] & 255, size = 8 * sizeof(T);
    if (at >= size || length == 0) return b[l];
    const T field = static_cast<T>((length >= size ? ~T(0) : (T(1) << length) - 1) << at);
    return static_cast<T>((b[l] & ~field) | ((a[l] << at) & field));
  });
}
// A field that reaches past the highest bit is filled with the sign, or zeros.
template <typename T>
void extract_field(Warp& w, const Ins& i) {
  T* const d = reg<T>(w, i.d);
  const T* const a = reg<T>(w, i.a);
  const u32 *const position = reg<u32>(w, i.b), *const lengths = reg<u32>(w, i.c);
  write_lanes(w, d, [&](int l) {
    const unsigned at = position[l] & 255, length = lengths[l] & 255, size = 8 * sizeof(T);
    if (length == 0) return T(0);
    if (at >= size) return static_cast<T>(std::is_signed_v<T> ? a[l] >> (size - 1) : 0);
    const unsigned use = std::min(length, size - at);
    return static_cast<T>(static_cast<T>(a[l] << (size - at - use)) >> (size - use));
  });
}

template <typename T>
void count_ones(Warp& w, const Ins& i) {
  const T* const a = reg<T>(w, i.a);
  write_lanes(w, reg<u32>(w, i.d), [&](int l) { return static_cast<u32>(std::popcount(a[l])); });
}
template <typename T>
void count_leading_zeros(Warp& w, const Ins& i) {
  const T* const a = reg<T>(w, i.a);
  write_lanes(w, reg<u32>(w, i.d), [&](int l) { return static_cast<u32>(std::countl_zero(a[l])); });
}

constexpr auto reverse_bits = [](auto x) {
  decltype(x) reversed = 0;
  for (std::size_t k = 0; k < 8 * sizeof x; ++k) reversed |= (x >> k & 1) << (8 * sizeof x - 1 - k);
  return reversed;
};

// The upper 32 bits of b:a shifted left, or the lower ones of it shifted right.
void funnel_shift(Warp& w, const Ins& i) {
  const bool right = i.combine & 1, clamps = i.combine & 2;
  const u32 *const a = reg<u32>(w, i.a), *const b = reg<u32>(w, i.b), *const c = reg<u32>(w, i.c);
  write_lanes(w, reg<u32>(w, i.d), [&](int l) {
    const u64 funnel = a[l] | static_cast<u64>(b[l]) << 32;
    const u32 amount = clamps ? std::min(c[l], 32u) : c[l] & 31;
    return static_cast<u32>(right ? funnel >> amount : funnel << amount >> 32);
  });
}

void combine_three(Warp& w, const Ins& i) {
  const u32 *const a = reg<u32>(w, i.a), *const b = reg<u32>(w, i.b), *const c = reg<u32>(w, i.c);
  write_lanes(w, reg<u32>(w, i.d), [&](int l) {
    u32 result = 0;
    for (int row = 0; row < 8; ++row)
      if (i.imm >> row & 1)
        result |= (row & 4 ? a[l] : ~a[l]) & (row & 2 ? b[l] : ~b[l]) & (row & 1 ? c[l] : ~c[l]);
    return result;
  });
}

// prmt: the selectors of four bytes of {b, a}. A selector's highest bit asks for the byte's sign
// instead, which only the default mode makes use of; the others count from the lowest two bits of
// c.
u32 byte_selectors(int mode, u32 c) {
  const u32 at = c & 3;
  switch (mode) {
    case 0:
      return c;
    case 1:  // f4e: forward
      return 0x3210 + 0x1111 * at;
    case 2:  // b4e: backward
      return at | ((at + 7) & 7) << 4 | ((at + 6) & 7) << 8 | ((at + 5) & 7) << 12;
    case 3:  // rc8: the byte, four times
      return 0x1111 * at;
    case 4:  // ecl: no lower than the byte
      return at | std::max(at, 1u) << 4 | std::max(at, 2u) << 8 | 3 << 12;
    case 5:  // ecr: no higher than the byte
      return std::min(at, 1u) << 4 | std::min(at, 2u) << 8 | at << 12;
    default:  // rc16: the half, twice
      return at & 1 ? 0x3232 : 0x1010;
  }
}
void permute_bytes(Warp& w, const Ins& i) {
  u32* const d = reg<u32>(w, i.d);
  const u32 *const a = reg<u32>(w, i.a), *const b = reg<u32>(w, i.b), *const c = reg<u32>(w, i.c);
  write_lanes(w, d, [&](int l) {
    const u64 bytes = a[l] | static_cast<u64>(b[l]) << 32;
    const u32 selectors = byte_selectors(i.combine, c[l]);
    u32 result = 0;
    for (int k = 0; k < 4; ++k) {
      const unsigned selector = selectors >> (4 * k) & 15;
      u32 byte = bytes >> (8 * (selector & 7)) & 255;
      if (selector & 8) byte = byte & 128 ? 255 : 0;
      result |= byte << (8 * k);
    }
    return result;
  });
}

// mov.b64 d, {a, b} and mov.b32 d, {a, b}: the first is the lower half.
void pack(Warp& w, const Ins& i) {
  const int* const from = list_of(w, i);
  if (size_of(i.type) == 8) {
    const u32 *const a = reg<u32>(w, from[0]), *const b = reg<u32>(w, from[1]);
    write_lanes(w, reg<u64>(w, i.d), [&](int l) { return a[l] | static_cast<u64>(b[l]) << 32; });
  } else {
    const u16 *const a = reg<u16>(w, from[0]), *const b = reg<u16>(w, from[1]);
    write_lanes(w, reg<u32>(w, i.d), [&](int l) { return a[l] | static_cast<u32>(b[l]) << 16; });
  }
}
template <typename Whole, typename Half>
void unpack_halves(Warp& w, const Ins& i) {
  const int* const to = list_of(w, i);
  Whole whole[kLanes];  // a copy: a half may have the place of the whole
  std::memcpy(whole, reg<Whole>(w, i.a), sizeof whole);
  for (int k = 0; k < 2; ++k)
    if (to[k] >= 0)
      write_lanes(w, reg<Half>(w, to[k]),
                  [&](int l) { return static_cast<Half>(whole[l] >> (8 * sizeof(Half) * k)); });
}

}  // namespace

Handler bits_handler(const Ins& i) {
  const auto by_size = [&](auto choose) { return for_bits(i.type, choose); };
  switch (i.op) {
    case Op::mov:
      return bits<move>(i.type);
    case Op::and_:
      return bits<bit_and>(i.type);
    case Op::or_:
      return bits<bit_or>(i.type);
    case Op::xor_:
      return bits<bit_xor>(i.type);
    case Op::not_:
      return bits<bit_not>(i.type);
    case Op::shl:
      return by_size([](auto t) -> Handler { return shift_left<decltype(t)>; });
    case Op::shr:
      return for_integers(i.type, [](auto t) -> Handler { return shift_right<decltype(t)>; });
    case Op::bfi:
      return by_size([](auto t) -> Handler { return insert_field<decltype(t)>; });
    case Op::bfe:
      return for_integers(i.type, [](auto t) -> Handler { return extract_field<decltype(t)>; });
    case Op::popc:
      return by_size([](auto t) -> Handler { return count_ones<decltype(t)>; });
    case Op::clz:
      return by_size([](auto t) -> Handler { return count_leading_zeros<decltype(t)>; });
    case Op::brev:
      return bits<reverse_bits>(i.type);
    case Op::shf:
      return funnel_shift;
    case Op::lop3:
      return combine_three;
    case Op::prmt:
      return permute_bytes;
    case Op::pack:
      return pack;
    case Op::unpack:
      return size_of(i.type) == 8 ? unpack_halves<u64, u32> : unpack_halves<u32, u16>;
    default:
      return nullptr;
  }
}

}  // namespace vgpu
