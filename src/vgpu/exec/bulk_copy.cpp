// cp.async.bulk and cp.async.bulk.tensor (TMA) to shared memory: PTX ISA, "Data Movement and
// Conversion Instructions: Bulk copy" and "Tensor copy".
#include <cstring>

#include "block.h"
#include "fault.h"
#include "load_store.h"
#include "mbarrier.h"
#include "types.h"
#include "vgpu/counters/count.h"

namespace vgpu {
namespace {

void copy_bytes(Warp& w, const Ins& i) {
  u64 to[kLanes];
  addresses(w, i, to);
  each_active_lane(w, [&](int l) {
    const unsigned size = reg<u32>(w, i.e)[l];
    const u64 from = reg<u64>(w, i.b)[l];
    if ((size | from | to[l]) & 15)
      fault(w, i, kMisaligned, l, "cp.async.bulk: addresses and size must be multiples of 16");
    BulkCopyCount(w).add(from, size);
    std::memcpy(shared_bytes(w, i, to[l], size, l, Access::write),
                global_bytes(w, i, from, size, l, "cp.async.bulk"), size);
    complete_bytes(w, i, mbarrier_at(w, i, reg<u32>(w, i.c)[l], l), size, l);
  });
}

TensorMap read_map(Warp& w, const Ins& i, u64 address, int lane) {
  if (address & 63) fault(w, i, kMisaligned, lane, "tensor map at " + hex(address));
  TensorMap map;
  for (unsigned k = 0; k < sizeof map; k += 8)
    std::memcpy(reinterpret_cast<char*>(&map) + k,
                bytes_at(w, i, Space::generic, address + k, 8, lane, Access::read), 8);
  if (map.magic != TensorMap::kMagic || map.rank != i.vector)
    fault(w, i, kLaunchFailed, lane, "not a tensor map of this rank");
  return map;
}

// The address of an element of the box that begins at the coordinates of the instruction; 0 outside
// of the tensor, where the copy writes zeros.
u64 element_address(const Warp& w, const TensorMap& map, const int* coordinates, unsigned element,
                    int lane) {
  u64 address = map.address;
  bool inside = true;
  for (unsigned r = 0; r < map.rank; ++r) {
    const s64 index =
        reg<s32>(w, coordinates[r])[lane] + static_cast<s64>(element % map.box[r]) * map.step[r];
    element /= map.box[r];
    inside = inside && index >= 0 && index < static_cast<s64>(map.size[r]);
    address += static_cast<u64>(index) * (r == 0 ? map.element : map.stride[r - 1]);
  }
  return inside ? address : 0;
}

void copy_box(Warp& w, const Ins& i) {
  u64 to[kLanes];
  addresses(w, i, to);
  each_active_lane(w, [&](int l) {
    const TensorMap map = read_map(w, i, reg<u64>(w, i.b)[l], l);
    const unsigned span = map.swizzle == 0 ? 0 : 16u << map.swizzle;
    if (to[l] & (span ? 8 * span - 1 : 127) & 127)
      fault(w, i, kMisaligned, l, "cp.async.bulk.tensor to " + hex(to[l]));
    unsigned elements = 1;
    for (unsigned r = 0; r < map.rank; ++r) elements *= map.box[r];
    BulkCopyCount count(w);
    for (unsigned e = 0; e < elements; ++e) {
      u64 at = to[l] + static_cast<u64>(e) * map.element;
      if (span) at ^= (at >> 7 & (span / 16 - 1)) << 4;
      char* const target = shared_bytes(w, i, at, map.element, l, Access::write);
      const u64 from = element_address(w, map, list_of(w, i), e, l);
      count.add(from, map.element);
      if (from)
        std::memcpy(target, global_bytes(w, i, from, map.element, l, "cp.async.bulk.tensor"),
                    map.element);
      else
        std::memset(target, 0, map.element);
    }
    complete_bytes(w, i, mbarrier_at(w, i, reg<u32>(w, i.c)[l], l), elements * map.element, l);
  });
}

}  // namespace

Handler bulk_copy_handler(const Ins& i) {
  switch (i.op) {
    case Op::bulk:
      return copy_bytes;
    case Op::tma:
      return copy_box;
    default:
      return nullptr;
  }
}

}  // namespace vgpu
