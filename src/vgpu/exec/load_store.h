// Addresses, and the bytes that they stand for.
#pragma once
#include <cstdint>
#include <cstring>

#include "shared_memory.h"
#include "warp.h"

namespace vgpu {

// The addresses of [register + offset], `width` the bytes of the register; of all lanes.
void addresses(const Warp& w, const Ins& i, std::uint64_t* to);
// The same in the shared window; lanes that are not active have the address of one that is.
void shared_addresses(const Warp& w, const Ins& i, std::uint32_t* to);

// The bytes of an address, checked; `what` is the access in the words of a message.
char* global_bytes(Warp& w, const Ins& i, std::uint64_t address, unsigned size, int lane,
                   const char* what);
char* bytes_at(Warp& w, const Ins& i, Space space, std::uint64_t address, unsigned size, int lane,
               Access access);

// Loads four words for each lane, from address(lane) on, to the registers `to`: 4 x 4 words at a
// time, transposed.
template <typename F>
void load_fours(const Warp& w, const int* to, F address) {
  using Four __attribute__((vector_size(16))) = std::uint32_t;
  std::uint32_t* d[4];
  for (int k = 0; k < 4; ++k) d[k] = reg<std::uint32_t>(w, to[k]);
  for (int l = 0; l < kLanes; l += 4) {
    Four row[4];
    for (int k = 0; k < 4; ++k) std::memcpy(&row[k], address(l + k), sizeof(Four));
    const Four low01 = __builtin_shuffle(row[0], row[1], Four{0, 4, 1, 5}),
               low23 = __builtin_shuffle(row[2], row[3], Four{0, 4, 1, 5}),
               high01 = __builtin_shuffle(row[0], row[1], Four{2, 6, 3, 7}),
               high23 = __builtin_shuffle(row[2], row[3], Four{2, 6, 3, 7});
    const Four column[4] = {__builtin_shuffle(low01, low23, Four{0, 1, 4, 5}),
                            __builtin_shuffle(low01, low23, Four{2, 3, 6, 7}),
                            __builtin_shuffle(high01, high23, Four{0, 1, 4, 5}),
                            __builtin_shuffle(high01, high23, Four{2, 3, 6, 7})};
    for (int k = 0; k < 4; ++k) std::memcpy(d[k] + l, &column[k], sizeof(Four));
  }
}

void load(Warp& w, const Ins& i);
void store(Warp& w, const Ins& i);

}  // namespace vgpu
