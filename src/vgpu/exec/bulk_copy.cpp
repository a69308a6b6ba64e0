// cp.async.bulk and cp.async.bulk.tensor (TMA) to shared memory: PTX ISA, "Data Movement and
// Conversion Instructions: Bulk copy" and "Tensor copy". What a copy may touch is checked when it
// is started; its bytes arrive when a wait for its mbarrier needs them, and until then nobody may
// look.
#include <algorithm>
#include <cstring>

#include "block.h"
#include "fault.h"
#include "load_store.h"
#include "types.h"
#include "vgpu/counters/count.h"

namespace vgpu {
namespace {

// Before [begin, end) is written by a copy that this lane starts: as if the lane wrote it, and
// besides the ordinary writes there must have come to the asynchronous proxy.
void check_destination(Warp& w, const Ins& i, u32 begin, u32 end, int lane) {
  SharedMemory& m = w.block->shared;
  shared_bytes(w, i, begin, end - begin, lane, Access::store);
  for (unsigned word = begin / 4; word < end / 4; ++word) {
    const u32 stamp = m.written[word];
    if (tick_of(stamp) < w.block->clock.first ||
        knows_fenced(w, lane, m.writer[word] & 255, lane_of(stamp), tick_of(stamp)))
      continue;
    fault(w, i, kLaunchFailed, lane,
          "an asynchronous copy writes to byte " + std::to_string(4 * word) +
              " of shared memory, which was written at " + place_of(w, m.writer_pc[word]) +
              " with no fence.proxy.async since");
  }
}

// Bytes that nobody must have read: NaNs as floats.
void poison(SharedMemory& m, const BulkCopy::Run& run) {
  std::memset(m.bytes.data() + run.to, 0xff, run.size);
}

void start(Warp& w, const Ins& i, BulkCopy copy, u64 mbarrier, int lane) {
  Mbarrier* const b = mbarrier_at(w, i, mbarrier, lane);
  copy.mbarrier = static_cast<u32>(mbarrier);
  copy.warp = w.index, copy.lane = lane, copy.pc = w.pc;
  SharedMemory& m = w.block->shared;
  const int column = mbarrier_state(w, copy.mbarrier).column;
  for (const BulkCopy::Run& run : copy.runs) {
    check_destination(w, i, run.to, run.to + run.size, lane);
    copy.bytes += run.size;
  }
  for (const BulkCopy::Run& run : copy.runs) {
    note_write(m, run.to, run.to + run.size, kUnderWay, column, w.pc);
    poison(m, run);
  }
  s64 under_way = copy.bytes;
  for (const BulkCopy& other : w.block->copies)
    if (other.mbarrier == copy.mbarrier) under_way += other.bytes;
  if (b->pending == 0 && under_way > b->bytes)
    fault(w, i, kLaunchFailed, lane,
          "a copy of " + std::to_string(copy.bytes) + " bytes, but its mbarrier expects only " +
              std::to_string(b->bytes - under_way + copy.bytes));
  w.block->copies.push_back(std::move(copy));
  w.block->progressed = true;
}

void copy_bytes(Warp& w, const Ins& i) {
  u64 to[kLanes];
  addresses(w, i, to);
  each_active_lane(w, [&](int l) {
    const u32 size = reg<u32>(w, i.e)[l];
    const u64 from = reg<u64>(w, i.b)[l];
    if ((size | from | to[l]) & 15)
      fault(w, i, kMisaligned, l, "cp.async.bulk: addresses and size must be multiples of 16");
    BulkCopyCount(w).add(from, size);
    if (size == 0) fault(w, i, kLaunchFailed, l, "cp.async.bulk of 0 bytes");
    global_bytes(w, i, from, size, l, "cp.async.bulk");
    BulkCopy copy;
    copy.runs = {{static_cast<u32>(to[l]), size, from}};
    start(w, i, std::move(copy), reg<u32>(w, i.c)[l], l);
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

void append(std::vector<BulkCopy::Run>* runs, u32 to, u32 size, u64 from) {
  if (!runs->empty()) {
    BulkCopy::Run& last = runs->back();
    const bool follows = from ? last.from && last.from + last.size == from : last.from == 0;
    if (last.to + last.size == to && follows) {
      last.size += size;
      return;
    }
  }
  runs->push_back({to, size, from});
}

void copy_box(Warp& w, const Ins& i) {
  u64 to[kLanes];
  addresses(w, i, to);
  each_active_lane(w, [&](int l) {
    const TensorMap map = read_map(w, i, reg<u64>(w, i.b)[l], l);
    // 1, 2, 3: rows of 32, 64, 128 bytes whose pieces of 16 are permuted
    const unsigned span = map.swizzle == 0 ? 0 : 16u << map.swizzle;
    if (to[l] & 127)
      fault(w, i, kMisaligned, l, "cp.async.bulk.tensor to " + hex(to[l]) + ", no multiple of 128");
    unsigned elements = 1;
    for (unsigned r = 0; r < map.rank; ++r) elements *= map.box[r];
    BulkCopy copy;
    BulkCopyCount count(w);
    for (unsigned e = 0; e < elements; ++e) {
      u32 at = static_cast<u32>(to[l]) + e * map.element;
      if (span) at ^= (at >> 7 & (span / 16 - 1)) << 4;
      const u64 from = element_address(w, map, list_of(w, i), e, l);
      count.add(from, map.element);
      if (from) global_bytes(w, i, from, map.element, l, "cp.async.bulk.tensor");
      append(&copy.runs, at, map.element, from);
    }
    start(w, i, std::move(copy), reg<u32>(w, i.c)[l], l);
  });
}

void arrive(Warp& w, const Ins& i, const BulkCopy& copy) {
  SharedMemory& m = w.block->shared;
  BlockClock& clock = w.block->clock;
  MbarrierState& state = mbarrier_state(w, copy.mbarrier);
  for (const BulkCopy::Run& run : copy.runs) {
    char* const to = m.bytes.data() + run.to;
    if (run.from)
      std::memcpy(to, global_bytes(w, i, run.from, run.size, copy.lane, "cp.async.bulk"), run.size);
    else
      std::memset(to, 0, run.size);
    note_write(m, run.to, run.to + run.size, stamp_of(clock.now, 0), state.column, copy.pc);
  }
  clock.last[state.column] = state.arriving.seen.seen[state.column] = clock.now;
  ++clock.now;
}

}  // namespace

void deliver_copies(Warp& w, const Ins& i, u32 mbarrier) {
  std::vector<BulkCopy>& all = w.block->copies;
  const auto* const b = reinterpret_cast<Mbarrier*>(w.block->shared.bytes.data() + mbarrier);
  const u32 phase = b->phase;
  while (b->phase == phase) {
    const auto mine = [&](const BulkCopy& c) { return c.mbarrier == mbarrier; };
    const auto count = static_cast<std::size_t>(std::count_if(all.begin(), all.end(), mine));
    if (count == 0) return;
    auto next = std::find_if(all.begin(), all.end(), mine);  // in no order that is promised
    for (std::size_t skip = w.block->random->choose(count); skip > 0; --skip)
      next = std::find_if(next + 1, all.end(), mine);
    const BulkCopy copy = std::move(*next);
    all.erase(next);
    arrive(w, i, copy);
    complete_bytes(w, i, mbarrier, copy.bytes, copy.lane);
  }
}

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
