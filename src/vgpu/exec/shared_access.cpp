// ld.shared and st.shared of whole words, the most frequent accesses: the checks of all lanes in a
// row. A word that was last touched before the warp's floor is in order with everybody; the others
// are looked at one by one, as in shared_memory.cpp.
#include <algorithm>
#include <cstring>

#include "cluster.h"
#include "fault.h"
#include "load_store.h"
#include "types.h"

namespace vgpu {
namespace {

// Whether the accesses of 4 `words` bytes are in shared memory and aligned.
template <int words>
bool in_range(const Warp& w, const u32* a) {
  u32 most = 0, any = 0;
  for (int l = 0; l < kLanes; ++l) most = std::max(most, a[l]), any |= a[l];
  return static_cast<u64>(most) + 4 * words <= w.block->shared_size && !(any & (4 * words - 1));
}

// Two lanes that write different values to one word.
[[noreturn]] void report_collision(const Warp& w, const Ins& i, const u32* a, int lane) {
  int other = lane;
  each_active_lane(w, [&](int l) {
    if (l != lane && a[l] == a[lane]) other = l;
  });
  fault(w, i, kLaunchFailed, lane,
        "race in shared memory at byte " + std::to_string(a[lane]) + ": " +
            thread_name(w, w.index, other) + " writes another value to it in the same instruction");
}

}  // namespace

namespace {

template <int words>
using Words __attribute__((vector_size(4 * words), aligned(4))) = u32;
template <int words>
Words<words>& words_at(u32* from) {
  return *reinterpret_cast<Words<words>*>(from);
}
// The lanes to look at: of those with the same address only one, where the whole warp is active.
// Warps ask for the same few patterns of addresses again and again.
u32 distinct_lanes(Warp& w, const u32* a) {
  if (w.active != kAllLanes) return w.active;
  LanePattern asked;
  each_lane([&](int l) { asked.distance[l] = a[l] - a[0]; });
  for (const LanePattern& known : w.patterns) {
    u32 differs = 0;
    each_lane([&](int l) { differs |= asked.distance[l] ^ known.distance[l]; });
    if (!differs) return known.lanes;
  }
  s32 repeats[kLanes] = {};
  for (int first = 0; first < kLanes; ++first)
    each_lane([&](int l) {
      repeats[l] |= (asked.distance[l] == asked.distance[first]) & (l > first) ? -1 : 0;
    });
  asked.lanes = ~bits_of(repeats);
  w.patterns[w.next_pattern++ % std::size(w.patterns)] = asked;
  return asked.lanes;
}

// Checks and notes the reads of `words` words at each of the lanes' places.
template <int words>
void note_reads(Warp& w, const Ins& i, const u32* place, u32 lanes) {
  SharedMemory& m = w.block->shared;
  const ClusterClock& clock = w.block->clock;
  const Words<words> zero = {};
  const Words<words> first = zero + stamp_of(clock.first, 0), now = zero + clock.now;
  // Less than this after the first: written by these blocks, and known to all lanes.
  const Words<words> clear =
      zero + (stamp_of(std::max(w.order.floor + 1, clock.first), 0) - stamp_of(clock.first, 0));
  u32 *const written = m.written.data(), *const read = m.read.data(),
             *const mine = m.reads_of(w.index);
  note_access(*w.block, w.column);
  auto unclear = zero != zero;
  for (u32 rest = lanes; rest != 0; rest &= rest - 1) {
    const int l = std::countr_zero(rest);
    const u32 at = place[l];
    unclear |= words_at<words>(written + at) - first >= clear;
    words_at<words>(read + at) = now;
    words_at<words>(mine + at) = zero + stamp_of(clock.now, l);
  }
  s32 any = 0;
  for (int k = 0; k < words; ++k) any |= unclear[k];
  for (u32 rest = any ? lanes : 0; rest != 0; rest &= rest - 1) {
    const int l = std::countr_zero(rest);
    for (int k = 0; k < words; ++k) check_read(w, i, *w.block, 4 * (place[l] + k), 15, l);
  }
}

// Whether a write of these words may have to wait for another access.
template <int words>
bool may_race(const Warp& w, const u32* place) {
  SharedMemory& m = w.block->shared;
  const Words<words> zero = {};
  const Words<words> floor = zero + stamp_of(w.order.floor + 1, 0),
                     last_read = zero + w.order.floor;
  u32 *const written = m.written.data(), *const read = m.read.data();
  auto some = zero != zero;
  for (int l = 0; l < kLanes; ++l)
    some |= (words_at<words>(written + place[l]) >= floor) |
            (words_at<words>(read + place[l]) > last_read);
  s32 any = 0;
  for (int k = 0; k < words; ++k) any |= some[k];
  return any != 0;
}

}  // namespace

template <int words>
void load_shared(Warp& w, const Ins& i) {
  alignas(64) u32 a[kLanes];
  shared_addresses(w, i, a);
  if (!in_range<words>(w, a)) return load(w, i);  // which finds what is wrong
  alignas(64) u32 place[kLanes];
  each_lane([&](int l) { place[l] = a[l] / 4; });
  note_reads<words>(w, i, place, distinct_lanes(w, a));
  const int* const to = list_of(w, i);
  const auto* const from = reinterpret_cast<const u32*>(w.block->shared.bytes.data());
  if (words == 4 && w.all_active && std::find(to, to + words, -1) == to + words) {
    return load_fours(w, to, [&](int l) { return from + place[l]; });
  }
  for (int k = 0; k < words; ++k)
    if (to[k] >= 0) write_lanes(w, reg<u32>(w, to[k]), [&](int l) { return from[place[l] + k]; });
}

template <int words>
void store_shared(Warp& w, const Ins& i) {
  SharedMemory& m = w.block->shared;
  alignas(64) u32 a[kLanes], place[kLanes];
  shared_addresses(w, i, a);
  if (!in_range<words>(w, a)) return store(w, i);
  each_lane([&](int l) { place[l] = a[l] / 4; });
  if (!w.block->products.empty() || !w.block->async_reads.empty())
    each_active_lane(
        w, [&](int l) { check_asynchronous_reads(w, i, *w.block, a[l], a[l] + 4 * words, l); });
  note_access(*w.block, w.column);
  if (may_race<words>(w, place))
    each_active_lane(w, [&](int l) {
      for (int k = 0; k < words; ++k) check_write(w, i, *w.block, a[l] + 4 * k, 15, l, false);
    });
  const int* const from = list_of(w, i);
  const u32* values[words];
  for (int k = 0; k < words; ++k) values[k] = reg<u32>(w, from[k]);
  auto* const bytes = reinterpret_cast<u32*>(m.bytes.data());
  u32* const written = m.written.data();
  Writer* const writer = m.writer.data();
  const u32 now = stamp_of(w.block->clock.now, 0);
  const Writer me = {static_cast<s16>(w.column), 15, w.pc};
  each_active_lane(w, [&](int l) {
    for (int k = 0; k < words; ++k) {
      bytes[place[l] + k] = values[k][l];
      written[place[l] + k] = now | static_cast<u32>(l);
      writer[place[l] + k] = me;
    }
  });
  if (distinct_lanes(w, a) == kAllLanes) return;
  each_active_lane(w, [&](int l) {
    for (int k = 0; k < words; ++k)
      if (bytes[place[l] + k] != values[k][l]) report_collision(w, i, a, l);
  });
}

template void load_shared<1>(Warp&, const Ins&);
template void load_shared<2>(Warp&, const Ins&);
template void load_shared<4>(Warp&, const Ins&);
template void store_shared<1>(Warp&, const Ins&);
template void store_shared<2>(Warp&, const Ins&);
template void store_shared<4>(Warp&, const Ins&);

}  // namespace vgpu
