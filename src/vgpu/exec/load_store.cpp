// ld and st: PTX ISA, "Data Movement and Conversion Instructions: ld, st".
#include "load_store.h"

#include <algorithm>
#include <cstring>

#include "shared_memory.h"
#include "types.h"

namespace vgpu {
namespace {

// Whether a register that is wider than the element gets the element's sign.
bool extends_sign(const Ins& i) {
  return i.type == Type::s8 || i.type == Type::s16 || (i.type == Type::s32 && i.width == 8);
}
s64 read_element(const char* from, Type type) {
  s64 value = 0;
  std::memcpy(&value, from, size_of(type));
  if (type == Type::s8) value = static_cast<s8>(value);
  if (type == Type::s16) value = static_cast<s16>(value);
  if (type == Type::s32) value = static_cast<s32>(value);
  return value;
}

// A parameter, from the same address for all lanes.
void load_parameter(Warp& w, const Ins& i, u64 address) {
  const int* const to = list_of(w, i);
  const unsigned each = size_of(i.type);
  const char* const from =
      bytes_at(w, i, Space::param, address, each * i.vector, first_active(w), Access::read);
  for (int k = 0; k < i.vector; ++k) {
    if (to[k] < 0) continue;
    const s64 value = read_element(from + k * each, i.type);
    if (i.width == 8)
      write_lanes(w, reg<s64>(w, to[k]), [&](int) { return value; });
    else if (i.width == 4)
      write_lanes(w, reg<s32>(w, to[k]), [&](int) { return static_cast<s32>(value); });
    else
      write_lanes(w, reg<s16>(w, to[k]), [&](int) { return static_cast<s16>(value); });
  }
}

bool same_for_all(const Warp& w, const u64* a) {
  const u64 first = a[first_active(w)];
  u64 differs = 0;
  each_active_lane(w, [&](int l) { differs |= a[l] ^ first; });
  return differs == 0;
}

template <typename Memory, typename Register>
void gather(Warp& w, int to, const u64* from, std::int64_t shift, int offset) {
  write_lanes(w, reg<Register>(w, to), [&](int l) {
    Memory value;
    std::memcpy(&value, reinterpret_cast<const char*>(from[l]) + shift + offset, sizeof value);
    return static_cast<Register>(value);
  });
}
void gather_elements(Warp& w, const Ins& i, const u64* from) {
  const int* const to = list_of(w, i);
  const int each = size_of(i.type);
  if (i.vector == 4 && each == 4 && i.width == 4 && w.all_active &&
      std::find(to, to + 4, -1) == to + 4)
    return load_fours(w, to,
                      [&](int l) { return reinterpret_cast<const char*>(from[l]) + w.host_shift; });
  for (int k = 0; k < i.vector; ++k) {
    if (to[k] < 0) continue;
    if (each == 4 && i.width == 8)
      gather<u32, u64>(w, to[k], from, w.host_shift, 4 * k);
    else if (each == 4)
      gather<u32, u32>(w, to[k], from, w.host_shift, 4 * k);
    else if (each == 8)
      gather<u64, u64>(w, to[k], from, w.host_shift, 8 * k);
    else if (each == 2)
      i.width == 2 ? gather<u16, u16>(w, to[k], from, w.host_shift, 2 * k)
                   : gather<u16, u32>(w, to[k], from, w.host_shift, 2 * k);
    else
      i.width == 2 ? gather<u8, u16>(w, to[k], from, w.host_shift, k)
                   : gather<u8, u32>(w, to[k], from, w.host_shift, k);
  }
}

// Whether the active lanes' accesses are aligned and within the allocation that was touched last.
// Addresses of the others become one of theirs.
bool within_last_allocation(const Warp& w, u64* a, unsigned size) {
  u64 least = ~0ull, most = 0, any = 0;
  if (w.active != kAllLanes) {
    const u64 other = a[first_active(w)];
    const s32* const mask = w.active_mask;
    each_lane([&](int l) { a[l] = mask[l] ? a[l] : other; });
  }
  each_lane(
      [&](int l) { least = std::min(least, a[l]), most = std::max(most, a[l]), any |= a[l]; });
  return !(any & (size - 1)) && least >= w.allocation_begin && most < w.allocation_end &&
         w.allocation_end - most >= size;
}

// The same for one allocation, which is looked up for the first lane.
bool within_one_allocation(Warp& w, const Ins& i, u64* a, unsigned size, const char* what) {
  if (within_last_allocation(w, a, size)) return true;
  const int lane = first_active(w);
  if (a[lane] & (size - 1)) return false;
  global_bytes(w, i, a[lane], size, lane, what);
  return within_last_allocation(w, a, size);
}

}  // namespace

void load(Warp& w, const Ins& i) {
  if (i.space == Space::param && i.a < 0) return load_parameter(w, i, i.imm);
  const int* const to = list_of(w, i);
  const unsigned each = size_of(i.type), size = each * i.vector;
  alignas(64) u64 a[kLanes];
  addresses(w, i, a);
  if (i.space == Space::param && same_for_all(w, a))
    return load_parameter(w, i, a[first_active(w)]);
  if (i.space == Space::global && !extends_sign(i) && (each >= 4 || i.width <= 4) &&
      within_one_allocation(w, i, a, size, "read"))
    return gather_elements(w, i, a);
  each_active_lane(w, [&](int l) {
    const char* const from = bytes_at(w, i, i.space, a[l], size, l, Access::read);
    for (int k = 0; k < i.vector; ++k) {
      if (to[k] < 0) continue;
      const s64 value = read_element(from + k * each, i.type);
      std::memcpy(w.registers + to[k] + l * i.width, &value, i.width);
    }
  });
}

void store(Warp& w, const Ins& i) {
  const int* const from = list_of(w, i);
  const unsigned each = size_of(i.type), size = each * i.vector;
  alignas(64) u64 a[kLanes];
  addresses(w, i, a);
  const auto write = [&](char* to, int lane) {
    for (int k = 0; k < i.vector; ++k) {
      const char* const value = w.registers + from[k] + lane * i.width;
      if (each == 4)
        std::memcpy(to + 4 * k, value, 4);
      else
        std::memcpy(to + k * each, value, each);
    }
  };
  if (i.space == Space::global && within_one_allocation(w, i, a, size, "write")) {
    each_active_lane(w, [&](int l) { write(reinterpret_cast<char*>(a[l]) + w.host_shift, l); });
    return;
  }
  char* to[kLanes];
  each_active_lane(w,
                   [&](int l) { to[l] = bytes_at(w, i, i.space, a[l], size, l, Access::store); });
  each_active_lane(w, [&](int l) {
    write(to[l], l);
    note_store(w, to[l], size, l);  // a generic address may be of shared memory
  });
}

Handler load_store_handler(const Ins& i) {
  switch (i.op) {
    case Op::ld:
      if (i.space == Space::shared && size_of(i.type) == 4 && i.width == 4)
        return i.vector == 1 ? load_shared<1> : i.vector == 2 ? load_shared<2> : load_shared<4>;
      return load;
    case Op::st:
      if (i.space == Space::shared && size_of(i.type) == 4 && i.width == 4)
        return i.vector == 1 ? store_shared<1> : i.vector == 2 ? store_shared<2> : store_shared<4>;
      return store;
    default:
      return nullptr;
  }
}

}  // namespace vgpu
