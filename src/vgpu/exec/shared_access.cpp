// ld.shared and st.shared of whole words, the most frequent accesses: the checks of all lanes in a
// row. A word that was last touched before the warp's floor is in order with everybody; the others
// are looked at one by one, as in shared_memory.cpp.
#include <algorithm>
#include <cstring>

#include "block.h"
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

template <int words>
void load_shared(Warp& w, const Ins& i) {
  SharedMemory& m = w.block->shared;
  alignas(64) u32 a[kLanes];
  shared_addresses(w, i, a);
  if (!in_range<words>(w, a)) return load(w, i);  // which finds what is wrong
  BlockClock& clock = w.block->clock;
  const u32 first = stamp_of(clock.first, 0), floor = stamp_of(w.order.floor + 1, 0);
  const u32* const written = m.written.data();
  each_lane([&](int l) { a[l] /= 4; });
  u32 unknown[kLanes] = {};
  for (int k = 0; k < words; ++k)
    each_lane([&](int l) {
      const u32 stamp = written[a[l] + k];
      unknown[l] |= (stamp < first) | (stamp >= floor);
    });
  u32 some = 0;
  each_lane([&](int l) { some |= unknown[l]; });
  if (some)
    each_active_lane(w, [&](int l) {
      for (int k = 0; unknown[l] && k < words; ++k) check_read(w, i, 4 * (a[l] + k), 15, l);
    });
  u32 *const read = m.read.data(), *const mine = m.reads_of(w.index);
  const u32 now = clock.now;
  clock.last[w.index] = now;
  const auto note = [&](int l) {
    for (int k = 0; k < words; ++k) {
      read[a[l] + k] = now;
      mine[a[l] + k] = stamp_of(now, l);
    }
  };
  if (w.active == kAllLanes)
    for (int l = 0; l < kLanes; ++l) note(l);
  else
    each_active_lane(w, note);
  const int* const to = list_of(w, i);
  const auto* const from = reinterpret_cast<const u32*>(m.bytes.data());
  for (int k = 0; k < words; ++k)
    if (to[k] >= 0) write_lanes(w, reg<u32>(w, to[k]), [&](int l) { return from[a[l] + k]; });
}

template <int words>
void store_shared(Warp& w, const Ins& i) {
  SharedMemory& m = w.block->shared;
  alignas(64) u32 a[kLanes];
  shared_addresses(w, i, a);
  if (!in_range<words>(w, a)) return store(w, i);
  BlockClock& clock = w.block->clock;
  const u32 floor = stamp_of(w.order.floor + 1, 0), last_read = w.order.floor;
  const int* const from = list_of(w, i);
  auto* const bytes = reinterpret_cast<u32*>(m.bytes.data());
  if (!w.block->products.empty())
    each_active_lane(w,
                     [&](int l) { check_operands_of_products(w, i, a[l], a[l] + 4 * words, l); });
  clock.last[w.index] = clock.now;
  u32 some = 0;
  for (int k = 0; k < words; ++k)
    each_lane([&](int l) {
      const unsigned word = a[l] / 4 + k;
      some |= (m.written[word] >= floor) | (m.read[word] > last_read);
    });
  if (some)
    each_active_lane(w, [&](int l) {
      for (int k = 0; k < words; ++k) check_write(w, i, a[l] + 4 * k, 15, l, false);
    });
  for (int k = 0; k < words; ++k) {
    const u32* const values = reg<u32>(w, from[k]);
    each_active_lane(w, [&](int l) {
      const unsigned word = a[l] / 4 + k;
      bytes[word] = values[l];
      m.written[word] = stamp_of(clock.now, l);
      m.writer[word] = static_cast<u16>(w.index | 15 << 8);
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
