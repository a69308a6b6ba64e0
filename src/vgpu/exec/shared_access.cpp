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
template <int words>
bool any_of(Words<words> x) {
  u32 bits = 0;
  for (int k = 0; k < words; ++k) bits |= x[k];
  return bits != 0;
}

// The lanes to look at: of active lanes with the same address only one, as far as is quickly seen.
// Warps that share a tile's rows and columns have the same addresses side by side, or in periods of
// 4, 8 or 16 lanes.
u32 distinct_lanes(const Warp& w, const u32* a) {
  if (w.active != kAllLanes) return w.active;
  alignas(64) u32 shifted[16 + kLanes];
  std::fill_n(shifted, 16, ~0u);
  std::memcpy(shifted + 16, a, sizeof(u32) * kLanes);
  s32 seen[kLanes];
  each_lane([&](int l) {
    const u32* const mine = shifted + 16 + l;
    const bool same =
        (*mine == mine[-1]) | (*mine == mine[-4]) | (*mine == mine[-8]) | (*mine == mine[-16]);
    seen[l] = same ? -1 : 0;
  });
  return ~bits_of(seen);
}

// Checks and notes the reads of `words` words at each of the lanes' places.
template <int words>
void note_reads(Warp& w, const Ins& i, const u32* place, u32 lanes) {
  SharedMemory& m = w.block->shared;
  const ClusterClock& clock = w.block->clock;
  const Words<words> zero = {};
  const Words<words> first = zero + stamp_of(clock.first, 0),
                     floor = zero + stamp_of(w.order.floor + 1, 0), now = zero + clock.now;
  u32 *const written = m.written.data(), *const read = m.read.data(),
             *const mine = m.reads_of(w.index);
  note_access(*w.block, w.column);
  for (; lanes != 0; lanes &= lanes - 1) {
    const int l = std::countr_zero(lanes);
    const u32 at = place[l];
    const Words<words> stamps = words_at<words>(written + at);
    const Words<words> unclear =
        reinterpret_cast<Words<words>>((stamps < first) | (stamps >= floor));
    if (any_of<words>(unclear))
      for (int k = 0; k < words; ++k) check_read(w, i, *w.block, 4 * (at + k), 15, l);
    words_at<words>(read + at) = now;
    words_at<words>(mine + at) = zero + stamp_of(clock.now, l);
  }
}

}  // namespace

template <int words>
void load_shared(Warp& w, const Ins& i) {
  alignas(64) u32 a[kLanes];
  shared_addresses(w, i, a);
  if (!in_range<words>(w, a)) return load(w, i);  // which finds what is wrong
  each_lane([&](int l) { a[l] /= 4; });
  note_reads<words>(w, i, a, distinct_lanes(w, a));
  const int* const to = list_of(w, i);
  auto* const from = reinterpret_cast<u32*>(w.block->shared.bytes.data());
  if (w.all_active && words > 1 && std::find(to, to + words, -1) == to + words) {
    u32* d[words];
    for (int k = 0; k < words; ++k) d[k] = reg<u32>(w, to[k]);
    for (int l = 0; l < kLanes; ++l) {
      const Words<words> values = words_at<words>(from + a[l]);
      for (int k = 0; k < words; ++k) d[k][l] = values[k];
    }
    return;
  }
  for (int k = 0; k < words; ++k)
    if (to[k] >= 0) write_lanes(w, reg<u32>(w, to[k]), [&](int l) { return from[a[l] + k]; });
}

template <int words>
void store_shared(Warp& w, const Ins& i) {
  SharedMemory& m = w.block->shared;
  alignas(64) u32 a[kLanes];
  shared_addresses(w, i, a);
  if (!in_range<words>(w, a)) return store(w, i);
  const ClusterClock& clock = w.block->clock;
  const u32 floor = stamp_of(w.order.floor + 1, 0), last_read = w.order.floor;
  const int* const from = list_of(w, i);
  auto* const bytes = reinterpret_cast<u32*>(m.bytes.data());
  if (!w.block->products.empty() || !w.block->async_reads.empty())
    each_active_lane(
        w, [&](int l) { check_asynchronous_reads(w, i, *w.block, a[l], a[l] + 4 * words, l); });
  note_access(*w.block, w.column);
  u32 some = 0;
  for (int k = 0; k < words; ++k)
    each_lane([&](int l) {
      const unsigned word = a[l] / 4 + k;
      some |= (m.written[word] >= floor) | (m.read[word] > last_read);
    });
  if (some)
    each_active_lane(w, [&](int l) {
      for (int k = 0; k < words; ++k) check_write(w, i, *w.block, a[l] + 4 * k, 15, l, false);
    });
  for (int k = 0; k < words; ++k) {
    const u32* const values = reg<u32>(w, from[k]);
    each_active_lane(w, [&](int l) {
      const unsigned word = a[l] / 4 + k;
      bytes[word] = values[l];
      m.written[word] = stamp_of(clock.now, l);
      m.writer[word] = written_by(w.column, 15);
      m.writer_pc[word] = w.pc;
    });
    each_active_lane(w, [&](int l) {
      if (bytes[a[l] / 4 + k] != values[l]) report_collision(w, i, a, l);
    });
  }
}

template void load_shared<1>(Warp&, const Ins&);
template void load_shared<2>(Warp&, const Ins&);
template void load_shared<4>(Warp&, const Ins&);
template void store_shared<1>(Warp&, const Ins&);
template void store_shared<2>(Warp&, const Ins&);
template void store_shared<4>(Warp&, const Ins&);

}  // namespace vgpu
