// Addresses, and the bytes that they stand for.
#pragma once
#include <cstdint>

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

void load(Warp& w, const Ins& i);
void store(Warp& w, const Ins& i);

}  // namespace vgpu
