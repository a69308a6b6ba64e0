// From addresses to bytes: PTX ISA, "State Spaces".
#include <algorithm>

#include "cluster.h"
#include "fault.h"
#include "load_store.h"
#include "types.h"

namespace vgpu {

void addresses(const Warp& w, const Ins& i, u64* to) {
  const u64 offset = static_cast<u64>(i.imm);
  if (i.a < 0) {
    each_lane([&](int l) { to[l] = offset; });
  } else if (i.width2 == 8) {
    const u64* const a = reg<u64>(w, i.a);
    each_lane([&](int l) { to[l] = a[l] + offset; });
  } else {
    const u32* const a = reg<u32>(w, i.a);
    each_lane([&](int l) { to[l] = static_cast<u32>(a[l] + offset); });
  }
}

void shared_addresses(const Warp& w, const Ins& i, u32* to) {
  const u32 offset = static_cast<u32>(i.imm);
  if (i.a < 0) {
    each_lane([&](int l) { to[l] = offset; });
  } else if (i.width2 == 4) {
    const u32* const a = reg<u32>(w, i.a);
    each_lane([&](int l) { to[l] = a[l] + offset; });
  } else {
    const u64* const a = reg<u64>(w, i.a);
    each_lane([&](int l) { to[l] = static_cast<u32>(a[l]) + offset; });
  }
  if (w.active == kAllLanes) return;
  const u32 other = to[first_active(w)];
  const s32* const mask = w.active_mask;
  each_lane([&](int l) { to[l] = mask[l] ? to[l] : other; });
}

namespace {

// Whether [address, address + size) ends before `end`: the sum may not be a number of 64 bits.
bool fits(u64 address, u64 size, u64 end) { return address < end && end - address >= size; }

// Where an address is that is in no allocation, as far as the one before it tells.
std::string place_of(u64 address) {
  const Allocation* near = memory_find(address - 4096);
  for (unsigned back = 0; !near && back < 4096; back += 64) near = memory_find(address - back);
  if (!near) return ", in no allocation";
  return ", " + std::to_string(address - near->base) + " bytes into an allocation of " +
         std::to_string(near->size);
}

}  // namespace

char* global_bytes(Warp& w, const Ins& i, u64 address, unsigned size, int lane, const char* what) {
  if (address < w.allocation_begin || !fits(address, size, w.allocation_end)) {
    const Allocation* const a = memory_find(address);
    const auto access = [&] { return std::string(what) + " of "; };
    if (!a || !fits(address, size, a->base + a->size))
      fault(w, i, kIllegalAddress, lane,
            access() + std::to_string(size) + " bytes at " + hex(address) + place_of(address));
    if (!a->host && !(w.program->launch->peers >> a->device & 1))
      fault(w, i, kIllegalAddress, lane,
            access() + "memory of device " + std::to_string(a->device) + " by device " +
                std::to_string(w.program->launch->device) + " without peer access");
    w.allocation_begin = a->base, w.allocation_end = a->base + a->size;
    w.host_shift = memory_host(a->base) - reinterpret_cast<char*>(a->base);
  }
  return reinterpret_cast<char*>(address) + w.host_shift;
}

namespace {

std::string access_text(Access access) {
  return access == Access::read || access == Access::look ? "read" : "write";
}

}  // namespace

char* bytes_at(Warp& w, const Ins& i, Space space, u64 address, unsigned size, int lane,
               Access access) {
  if (address & (size - 1))
    fault(w, i, kMisaligned, lane,
          "address " + hex(address) + " is not a multiple of " + std::to_string(size));
  if (space == Space::generic && address >> 56) {  // a window of the generic space
    space = address >> 56 == 1 ? Space::cluster : address >> 56 == 2 ? Space::param : Space::local;
    address &= (1ull << 56) - 1;
  }
  switch (space) {
    case Space::shared:
    case Space::cluster: {
      const SharedPlace p = shared_place(w, i, address, lane, space == Space::cluster);
      return shared_bytes(w, i, *p.block, p.offset, size, lane, access);
    }
    case Space::param:
      if (!fits(address, size, w.program->launch->params.size()))
        fault(w, i, kIllegalAddress, lane,
              access_text(access) + " of " + std::to_string(size) +
                  " bytes of the parameters at byte " + std::to_string(address) + " of " +
                  std::to_string(w.program->launch->params.size()));
      return const_cast<char*>(w.program->launch->params.data()) + address;
    case Space::local: {
      const unsigned local_bytes = static_cast<unsigned>(w.program->code->local_bytes);
      if (!fits(address, size, local_bytes))
        fault(w, i, kIllegalAddress, lane,
              access_text(access) + " of " + std::to_string(size) +
                  " bytes of local memory at byte " + std::to_string(address) + "; a thread has " +
                  std::to_string(local_bytes));
      return w.local + static_cast<std::size_t>(lane) * local_bytes + address;
    }
    default:
      return global_bytes(w, i, address, size, lane, access_text(access).c_str());
  }
}

}  // namespace vgpu
