#include "order.h"

#include <algorithm>

#include "block.h"
#include "warp.h"

namespace vgpu {
namespace {

bool all_of(const Warp& w, std::uint32_t lanes) { return (w.live & ~lanes) == 0; }

Knowledge& own(Warp& w, int lane) {
  std::unique_ptr<Knowledge>& k = w.order.alone[lane];
  if (!k) k = std::make_unique<Knowledge>();
  return *k;
}
template <typename F>
void each_of(std::uint32_t lanes, F f) {
  for (; lanes != 0; lanes &= lanes - 1) f(std::countr_zero(lanes));
}
void take_from_lanes(const Warp& w, std::uint32_t lanes, Knowledge* to) {
  each_of(lanes, [&](int l) {
    if (w.order.alone[l]) to->join(*w.order.alone[l]);
  });
}

}  // namespace

void begin_order(Warp& w) {
  WarpOrder& o = w.order;
  const BlockClock& clock = w.block->clock;
  o.known.seen.seen.fill(clock.first - 1);
  o.known.fenced.seen.fill(clock.first - 1);
  o.known.seen.threads.clear();
  o.known.fenced.threads.clear();
  for (auto& k : o.alone) k.reset();
  o.lanes_synchronized = o.floor = clock.first - 1;
}

void update_floor(Warp& w) {
  const BlockClock& clock = w.block->clock;
  const auto& seen = w.order.known.seen.seen;
  Tick floor = clock.now - 1;
  for (int c = 0; c < kColumns; ++c)
    if (clock.last[c] > seen[c]) floor = std::min(floor, seen[c]);
  w.order.floor = floor;
}

void synchronize_lanes(Warp& w, std::uint32_t lanes) {
  WarpOrder& o = w.order;
  BlockClock& clock = w.block->clock;
  if (all_of(w, lanes)) {
    take_from_lanes(w, kAllLanes, &o.known);
    for (auto& k : o.alone) k.reset();
    o.lanes_synchronized = o.known.seen.seen[w.index] = clock.now;
    std::erase_if(o.known.seen.threads, [&](const auto& t) { return t.column == w.index; });
    ++clock.now;
    update_floor(w);
    return;
  }
  Knowledge together;
  take_from_lanes(w, lanes, &together);
  each_of(lanes, [&](int l) { together.seen.add({w.index, l, clock.now}); });
  each_of(lanes, [&](int l) { own(w, l) = together; });
  ++clock.now;
}

void release(Warp& w, std::uint32_t lanes, Knowledge* to) {
  BlockClock& clock = w.block->clock;
  to->join(w.order.known);
  take_from_lanes(w, lanes, to);
  if (all_of(w, lanes)) {
    to->seen.seen[w.index] = clock.now;
  } else {
    each_of(lanes, [&](int l) { to->seen.add({w.index, l, clock.now}); });
  }
  ++clock.now;
}

void acquire(Warp& w, std::uint32_t lanes, const Knowledge& from) {
  if (all_of(w, lanes)) {
    // What others know of this warp's lanes is no order among them.
    const Tick mine = w.order.known.seen.seen[w.index];
    w.order.known.join(from);
    w.order.known.seen.seen[w.index] = mine;
    for (const auto& t : from.seen.threads)
      if (t.column == w.index) w.order.known.seen.add(t);
    if (from.seen.seen[w.index] > mine)  // all its lanes passed it on, and all have it back
      w.order.lanes_synchronized = w.order.known.seen.seen[w.index] = from.seen.seen[w.index];
    update_floor(w);
    return;
  }
  each_of(lanes, [&](int l) { own(w, l).join(from); });
}

void fence_proxies(Warp& w, std::uint32_t lanes) {
  BlockClock& clock = w.block->clock;
  if (all_of(w, lanes)) {
    Knowledge& known = w.order.known;
    known.fenced.join(known.seen);
    known.fenced.seen[w.index] = clock.now;
  } else {
    each_of(lanes, [&](int l) {
      Knowledge& mine = own(w, l);
      mine.fenced.join(w.order.known.seen);
      mine.fenced.join(mine.seen);
      mine.fenced.add({w.index, l, clock.now});
    });
  }
  ++clock.now;
}

bool knows(const Warp& w, int lane, int column, int other_lane, Tick tick) {
  if (column == w.index && (other_lane == lane || tick <= w.order.lanes_synchronized)) return true;
  if (w.order.known.seen.has(column, other_lane, tick)) return true;
  const Knowledge* const mine = w.order.alone[lane].get();
  return mine && mine->seen.has(column, other_lane, tick);
}

bool knows_fenced(const Warp& w, int lane, int column, int other_lane, Tick tick) {
  if (column >= kFirstCopyColumn) return true;
  if (w.order.known.fenced.has(column, other_lane, tick)) return true;
  const Knowledge* const mine = w.order.alone[lane].get();
  return mine && mine->fenced.has(column, other_lane, tick);
}

}  // namespace vgpu
