// cp.async.bulk and cp.async.bulk.tensor (TMA) to the shared memory of the block or of others in
// its cluster, and st.async: PTX ISA, "Data Movement and Conversion Instructions: Bulk copy",
// "Tensor copy" and "st.async". What a copy may touch is checked when it is started; its bytes
// arrive when a wait for its mbarrier needs them, and until then nobody may look.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "cluster.h"
#include "fault.h"
#include "grid_dependency.h"
#include "load_store.h"
#include "types.h"
#include "vgpu/counters/count.h"

namespace vgpu {
namespace {

// That a copy may read these bytes.
void read_global(Warp& w, const Ins& i, u64 from, unsigned size, int lane, const char* what) {
  global_bytes(w, i, from, size, lane, what);
  if (!w.program->unwatched.empty()) watch_access(w, i, from, size, lane, true, false);
}

// Where a copy writes, and the barrier beside it that counts its bytes.
struct Target {
  Block* block;
  u32 to, mbarrier;
};

// Before [begin, end) is written by a copy that this lane starts: as if the lane wrote it, and
// besides the ordinary writes there must have come to the asynchronous proxy.
void check_destination(Warp& w, const Ins& i, Block& block, u32 begin, u32 end, int lane) {
  SharedMemory& m = block.shared;
  shared_bytes(w, i, block, begin, end - begin, lane, Access::copy);
  if (i.op == Op::st_async) return;  // not of that proxy
  for (unsigned word = begin / 4; word < end / 4; ++word) {
    const u32 stamp = m.written[word];
    if (tick_of(stamp) < block.clock.first ||
        knows_fenced(w, lane, m.writer[word].column, lane_of(stamp), tick_of(stamp)))
      continue;
    fault(w, i, kLaunchFailed, lane,
          "an asynchronous copy writes to byte " + std::to_string(4 * word) + " of shared memory" +
              of_block(w, block) + ", which was written at " + place_of(w, m.writer[word].pc) +
              " with no fence.proxy.async since");
  }
}

// Before a copy counts its bytes at a barrier: that was initialized by ordinary writes, too.
void check_barrier(Warp& w, const Ins& i, Block& block, u32 mbarrier, int lane) {
  if (i.op == Op::st_async || mbarrier_state(block, mbarrier).init_fenced) return;
  const u32 stamp = block.shared.written[mbarrier / 4];
  const Writer& writer = block.shared.writer[mbarrier / 4];
  if (knows_fenced(w, lane, writer.column, lane_of(stamp), tick_of(stamp))) return;
  fault(w, i, kLaunchFailed, lane,
        "the mbarrier of an asynchronous copy was initialized at " + place_of(w, writer.pc) +
            " with no fence.mbarrier_init or fence.proxy.async since");
}

// Bytes that nobody must have read: NaNs as floats.
void poison(SharedMemory& m, const BulkCopy::Run& run) {
  std::memset(m.bytes.data() + run.to, 0xff, run.size);
}

void start(Warp& w, const Ins& i, BulkCopy copy, const Target& target, int lane) {
  Block& block = *target.block;
  Mbarrier* const b = mbarrier_at(w, i, block, target.mbarrier, lane);
  check_barrier(w, i, block, target.mbarrier, lane);
  copy.mbarrier = target.mbarrier;
  copy.warp = &w, copy.lane = lane, copy.pc = w.pc;
  SharedMemory& m = block.shared;
  const int column = mbarrier_state(block, copy.mbarrier).column;
  for (const BulkCopy::Run& run : copy.runs) {
    check_destination(w, i, block, run.to, run.to + run.size, lane);
    copy.bytes += run.size;
  }
  for (const BulkCopy::Run& run : copy.runs) {
    note_write(m, run.to, run.to + run.size, kUnderWay, column, w.pc);
    poison(m, run);
  }
  s64 under_way = copy.bytes;
  for (const BulkCopy& other : block.copies)
    if (other.mbarrier == copy.mbarrier) under_way += other.bytes;
  if (b->pending == 0 && under_way > b->bytes)
    fault(w, i, kLaunchFailed, lane,
          "a copy of " + std::to_string(copy.bytes) + " bytes, but its mbarrier expects only " +
              std::to_string(b->bytes - under_way + copy.bytes));
  block.copies.push_back(std::move(copy));
  w.block->progressed = true;
}

// combine, of copies
constexpr int kMulticast = 1, kFromShared = 2;

// The blocks that a copy of this lane goes to: that of its addresses, or those of the mask, each of
// which has the same offsets.
std::vector<Target> targets(Warp& w, const Ins& i, u64 to, u64 mbarrier, int mask, int lane) {
  const SharedPlace first = shared_place(w, i, to, lane, true),
                    barrier = shared_place(w, i, mbarrier, lane, true);
  if (!(i.combine & kMulticast)) {
    if (first.block != barrier.block)
      fault(w, i, kLaunchFailed, lane,
            "the copy is to the shared memory of " + block_name(*first.block) +
                ", its mbarrier in that of " + block_name(*barrier.block));
    return {{first.block, first.offset, barrier.offset}};
  }
  std::vector<Target> all;
  const u32 blocks = reg<u16>(w, mask)[lane], size = w.block->cluster.size();
  if (blocks == 0 || blocks >> size)
    fault(w, i, kLaunchFailed, lane,
          "multicast to the blocks " + hex(blocks) + "; the cluster has " + std::to_string(size));
  for (u32 rank = 0; rank < size; ++rank)
    if (blocks >> rank & 1) {
      const u64 tag = u64{rank + 1} << kRankShift;
      const SharedPlace p = shared_place(w, i, first.offset | tag, lane, true);
      all.push_back({p.block, p.offset, barrier.offset});
    }
  return all;
}

// Before a copy reads [begin, end) of the lane's own shared memory: written by ordinary writes that
// have come to the asynchronous proxy, and not to be written again until the copy is done.
void check_source(Warp& w, const Ins& i, u32 begin, u32 size, int lane) {
  SharedMemory& m = w.block->shared;
  shared_bytes(w, i, *w.block, begin, size, lane, Access::read);
  for (unsigned word = begin / 4; word < (begin + size) / 4; ++word) {
    const u32 stamp = m.written[word];
    if (knows_fenced(w, lane, m.writer[word].column, lane_of(stamp), tick_of(stamp))) continue;
    fault(w, i, kLaunchFailed, lane,
          "an asynchronous copy reads byte " + std::to_string(4 * word) +
              " of shared memory, which was written at " + place_of(w, m.writer[word].pc) +
              " with no fence.proxy.async since");
  }
}
int note_source(Warp& w, const Target& target, u32 begin, u32 size) {
  static std::atomic<int> number{0};
  const int column = mbarrier_state(*target.block, target.mbarrier).column;
  w.block->async_reads.push_back({++number, begin, begin + size, column, w.pc, 0});
  return number;
}

void copy_bytes(Warp& w, const Ins& i) {
  u64 to[kLanes];
  addresses(w, i, to);
  each_active_lane(w, [&](int l) {
    const u32 size = reg<u32>(w, i.e)[l];
    const bool shared = i.combine & kFromShared;
    const u64 from = shared && i.width == 4 ? reg<u32>(w, i.b)[l] : reg<u64>(w, i.b)[l];
    if ((size | from | to[l]) & 15)
      fault(w, i, kMisaligned, l, "cp.async.bulk: addresses and size must be multiples of 16");
    if (size == 0) fault(w, i, kLaunchFailed, l, "cp.async.bulk of 0 bytes");
    const int mask = i.list < 0 ? -1 : list_of(w, i)[0];
    const std::vector<Target> all = targets(w, i, to[l], reg<u32>(w, i.c)[l], mask, l);
    const u64 begin = shared ? shared_place(w, i, from, l, false).offset : from;
    if (shared)
      check_source(w, i, static_cast<u32>(begin), size, l);
    else
      read_global(w, i, from, size, l, "cp.async.bulk");
    if (!shared) BulkCopyCount(w, all.size()).add(from, size);
    for (const Target& target : all) {
      BulkCopy copy;
      copy.runs = {{target.to, size, begin}};
      if (shared) {
        copy.source = w.block;
        copy.read = note_source(w, target, static_cast<u32>(begin), size);
      }
      start(w, i, std::move(copy), target, l);
    }
  });
}

// st.async: the values of a thread, which arrive as a copy does.
void store_later(Warp& w, const Ins& i) {
  const int* const from = list_of(w, i);
  const unsigned each = size_of(i.type), size = each * i.vector;
  u64 to[kLanes];
  addresses(w, i, to);
  each_active_lane(w, [&](int l) {
    if (to[l] & (size - 1))
      fault(w, i, kMisaligned, l,
            "address " + hex(to[l]) + " is not a multiple of " + std::to_string(size));
    const Target target = targets(w, i, to[l], reg<u32>(w, i.b)[l], -1, l)[0];
    BulkCopy copy;
    copy.runs = {{target.to, size, 0}};
    copy.values.resize(size);
    for (int k = 0; k < i.vector; ++k)
      std::memcpy(copy.values.data() + k * each, w.registers + from[k] + l * i.width, each);
    start(w, i, std::move(copy), target, l);
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
    const int mask = i.combine & kMulticast ? list_of(w, i)[i.vector] : -1;
    const std::vector<Target> all = targets(w, i, to[l], reg<u32>(w, i.c)[l], mask, l);
    BulkCopy copy;
    BulkCopyCount count(w, all.size());
    for (unsigned e = 0; e < elements; ++e) {
      u32 at = all[0].to + e * map.element;
      if (span) at ^= (at >> 7 & (span / 16 - 1)) << 4;
      const u64 from = element_address(w, map, list_of(w, i), e, l);
      count.add(from, map.element);
      if (from) read_global(w, i, from, map.element, l, "cp.async.bulk.tensor");
      append(&copy.runs, at, map.element, from);
    }
    for (const Target& target : all) start(w, i, copy, target, l);
  });
}

void arrive(Warp& w, const Ins& i, Block& block, const BulkCopy& copy) {
  SharedMemory& m = block.shared;
  ClusterClock& clock = block.clock;
  MbarrierState& state = mbarrier_state(block, copy.mbarrier);
  for (const BulkCopy::Run& run : copy.runs) {
    char* const to = m.bytes.data() + run.to;
    if (!copy.values.empty())
      std::memcpy(to, copy.values.data(), run.size);
    else if (copy.source)
      std::memcpy(to, copy.source->shared.bytes.data() + run.from, run.size);
    else if (run.from)
      std::memcpy(to, global_bytes(w, i, run.from, run.size, copy.lane, "cp.async.bulk"), run.size);
    else
      std::memset(to, 0, run.size);
    note_write(m, run.to, run.to + run.size, stamp_of(clock.now, 0), state.column, copy.pc);
  }
  if (copy.source)
    for (AsyncRead& r : copy.source->async_reads)
      if (r.number == copy.read) r.done = clock.now;
  note_access(block, state.column);
  state.arriving.seen.set(state.column, clock.now);
  ++clock.now;
}

}  // namespace

void deliver_copies(Warp& w, const Ins& i, u32 mbarrier) {
  Block& block = *w.block;
  std::vector<BulkCopy>& all = block.copies;
  const auto* const b = reinterpret_cast<Mbarrier*>(block.shared.bytes.data() + mbarrier);
  const u32 phase = b->phase;
  while (b->phase == phase) {
    const auto mine = [&](const BulkCopy& c) { return c.mbarrier == mbarrier; };
    const auto count = static_cast<std::size_t>(std::count_if(all.begin(), all.end(), mine));
    if (count == 0) return;
    auto next = std::find_if(all.begin(), all.end(), mine);  // in no order that is promised
    for (std::size_t skip = block.random->choose(count); skip > 0; --skip)
      next = std::find_if(next + 1, all.end(), mine);
    const BulkCopy copy = std::move(*next);
    all.erase(next);
    arrive(w, i, block, copy);
    complete_bytes(w, i, block, mbarrier, copy.bytes, copy.lane);
  }
}

Handler bulk_copy_handler(const Ins& i) {
  switch (i.op) {
    case Op::bulk:
      return copy_bytes;
    case Op::tma:
      return copy_box;
    case Op::st_async:
      return store_later;
    default:
      return nullptr;
  }
}

}  // namespace vgpu
