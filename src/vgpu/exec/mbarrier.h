// A barrier in shared memory: PTX ISA, "mbarrier". Its 64 bits are opaque to programs.
#pragma once
#include <cstdint>

#include "warp.h"

namespace vgpu {

// A phase is complete when `count` arrivals were made and all expected bytes have come.
struct Mbarrier {
  std::uint16_t count, pending;
  std::int32_t bytes : 31;
  std::uint32_t phase : 1;
};
static_assert(sizeof(Mbarrier) == 8);

Mbarrier* mbarrier_at(Warp& w, const Ins& i, std::uint64_t address, int lane);
// So many bytes have come.
void complete_bytes(Warp& w, const Ins& i, Mbarrier* barrier, unsigned bytes, int lane);

}  // namespace vgpu
