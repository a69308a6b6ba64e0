#include "shared_memory.h"

#include <algorithm>

#include "block.h"
#include "fault.h"
#include "load_store.h"
#include "types.h"

namespace vgpu {
namespace {

std::string race(std::uint64_t address, const std::string& rest) {
  return "race in shared memory at " + std::to_string(address) + ": " + rest;
}

void check_read(Warp& w, const Ins& i, unsigned at, int lane) {
  SharedMemory& m = w.block->shared;
  const u32 me = w.index + 1, now = m.epoch, wrote = m.writes[at / 4];
  if (wrote >> 8 < m.first_epoch)
    fault(w, i, kLaunchFailed, lane,
          "shared memory read before it was written, at " + std::to_string(at));
  if (wrote >> 8 == now && (wrote & 255) != me && w.program->check_races)
    fault(w, i, kLaunchFailed, lane,
          race(at, "read by warp " + std::to_string(me - 1) + ", written by warp " +
                       std::to_string((wrote & 255) - 1) + " since the last barrier"));
  u32& did_read = m.reads[at / 4];
  did_read = now << 8 | (did_read >> 8 == now && (did_read & 255) != me ? 255 : me);
}
void check_write(Warp& w, const Ins& i, unsigned at, int lane) {
  SharedMemory& m = w.block->shared;
  const u32 me = w.index + 1, now = m.epoch, wrote = m.writes[at / 4], did_read = m.reads[at / 4];
  if (w.program->check_races) {
    if (wrote >> 8 == now && (wrote & 255) != me)
      fault(w, i, kLaunchFailed, lane,
            race(at, "written by warps " + std::to_string(me - 1) + " and " +
                         std::to_string((wrote & 255) - 1) + " without a barrier between"));
    if (did_read >> 8 == now && (did_read & 255) != me)
      fault(w, i, kLaunchFailed, lane,
            race(at, "written by warp " + std::to_string(me - 1) +
                         ", read by another since the last barrier"));
  }
  m.writes[at / 4] = now << 8 | me;
}

}  // namespace

char* shared_bytes(Warp& w, const Ins& i, std::uint64_t address, unsigned size, int lane,
                   Access access) {
  SharedMemory& m = w.block->shared;
  const bool writes = access == Access::write;
  if (address + size > m.bytes.size())
    fault(w, i, kIllegalAddress, lane,
          std::string(writes ? "shared write" : "shared read") + " of " + std::to_string(size) +
              " bytes at " + std::to_string(address) + " of " + std::to_string(m.bytes.size()));
  for (unsigned at = address & ~3u; at < address + size; at += 4) {
    const u32 wrote = m.writes[at / 4];
    if (wrote >> 8 == kUnderWay)
      fault(w, i, kLaunchFailed, lane,
            "shared memory at " + std::to_string(at) + " " + (writes ? "written" : "read") +
                " while a cp.async of warp " + std::to_string((wrote & 255) - 1) +
                " to it has not been waited for");
    writes ? check_write(w, i, at, lane) : check_read(w, i, at, lane);
  }
  return m.bytes.data() + address;
}

template <int words>
void load_shared(Warp& w, const Ins& i) {
  SharedMemory& m = w.block->shared;
  alignas(64) u32 a[kLanes];
  shared_addresses(w, i, a);
  u32 most = 0, any = 0;
  for (int l = 0; l < kLanes; ++l) most = std::max(most, a[l]), any |= a[l];
  // What is wrong is looked at again, lane by lane, for the message.
  if (most + 4 * words > m.bytes.size() || any & (4 * words - 1)) return load(w, i);
  const u32 me = w.index + 1, now = m.epoch, first = m.first_epoch;
  const u32* const writes = m.writes.data();
  u32* const reads = m.reads.data();
  const bool races = w.program->check_races;
  u32 bad = 0;
  for (int k = 0; k < words; ++k)
    for (int l = 0; l < kLanes; ++l) {
      const u32 t = writes[a[l] / 4 + k];
      bad |= (t >> 8 < first) | (t >> 8 > now) | (races & (t >> 8 == now) & ((t & 255) != me));
    }
  if (bad) return load(w, i);
  if (races)
    for (int k = 0; k < words; ++k)
      for (int l = 0; l < kLanes; ++l) {
        u32& t = reads[a[l] / 4 + k];
        t = now << 8 | ((t >> 8 == now) & ((t & 255) != me) ? 255 : me);
      }
  const int* const to = list_of(w, i);
  const auto* const from = reinterpret_cast<const u32*>(m.bytes.data());
  for (int k = 0; k < words; ++k)
    if (to[k] >= 0) write_lanes(w, reg<u32>(w, to[k]), [&](int l) { return from[a[l] / 4 + k]; });
}
template void load_shared<1>(Warp&, const Ins&);
template void load_shared<2>(Warp&, const Ins&);
template void load_shared<4>(Warp&, const Ins&);

}  // namespace vgpu
