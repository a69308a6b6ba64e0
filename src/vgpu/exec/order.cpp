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
  const ClusterClock& clock = w.block->clock;
  o.known.seen.begin(clock.first - 1);
  o.known.fenced.begin(clock.first - 1);
  for (auto& k : o.alone) k.reset();
  o.at_fence.reset();
  o.fence_lanes = 0;
  o.lanes_synchronized = o.floor = clock.first - 1;
}

void update_floor(Warp& w) {
  const std::vector<Tick>& last = w.block->shared.last;
  const VectorClock& seen = w.order.known.seen;
  Tick floor = w.block->clock.now - 1;
  for (int c = 0; c < kColumns; ++c)
    if (last[c] > seen.first[c]) floor = std::min(floor, seen.first[c]);
  for (int c = kColumns; c < static_cast<int>(last.size()); ++c)
    if (last[c] > seen.at(c)) floor = std::min(floor, seen.at(c));
  w.order.floor = floor;
}

void synchronize_lanes(Warp& w, std::uint32_t lanes) {
  WarpOrder& o = w.order;
  ClusterClock& clock = w.block->clock;
  if (all_of(w, lanes)) {
    take_from_lanes(w, kAllLanes, &o.known);
    for (auto& k : o.alone) k.reset();
    o.lanes_synchronized = clock.now;
    o.known.seen.set(w.column, clock.now);
    std::erase_if(o.known.seen.threads, [&](const auto& t) { return t.column == w.column; });
    ++clock.now;
    update_floor(w);
    return;
  }
  Knowledge together;
  take_from_lanes(w, lanes, &together);
  each_of(lanes, [&](int l) { together.seen.add({w.column, l, clock.now}); });
  each_of(lanes, [&](int l) { own(w, l) = together; });
  ++clock.now;
}

void release(Warp& w, std::uint32_t lanes, Knowledge* to) {
  ClusterClock& clock = w.block->clock;
  to->join(w.order.known);
  take_from_lanes(w, lanes, to);
  if (all_of(w, lanes)) {
    to->seen.set(w.column, clock.now);
  } else {
    each_of(lanes, [&](int l) { to->seen.add({w.column, l, clock.now}); });
  }
  ++clock.now;
}

void acquire(Warp& w, std::uint32_t lanes, const Knowledge& from) {
  if (all_of(w, lanes)) {
    // What others know of this warp's lanes is no order among them.
    VectorClock& seen = w.order.known.seen;
    const Tick mine = seen.at(w.column), theirs = from.seen.at(w.column);
    w.order.known.join(from);
    seen.set(w.column, mine);
    for (const auto& t : from.seen.threads)
      if (t.column == w.column) seen.add(t);
    if (theirs > mine) {  // all its lanes passed it on, and all have it back
      w.order.lanes_synchronized = theirs;
      seen.set(w.column, theirs);
    }
    update_floor(w);
    return;
  }
  each_of(lanes, [&](int l) { own(w, l).join(from); });
}

void fence_memory(Warp& w, std::uint32_t lanes) {
  WarpOrder& o = w.order;
  o.at_fence = std::make_unique<Knowledge>();
  o.fence_lanes = lanes;
  release(w, lanes, o.at_fence.get());
}

void note_access(Block& block, int column) { block.shared.last[column] = block.clock.now; }

void fence_proxies(Warp& w, std::uint32_t lanes) {
  ClusterClock& clock = w.block->clock;
  if (all_of(w, lanes)) {
    Knowledge& known = w.order.known;
    known.fenced.join(known.seen);
    known.fenced.set(w.column, clock.now);
  } else {
    each_of(lanes, [&](int l) {
      Knowledge& mine = own(w, l);
      mine.fenced.join(w.order.known.seen);
      mine.fenced.join(mine.seen);
      mine.fenced.add({w.column, l, clock.now});
    });
  }
  ++clock.now;
}

bool knows(const Warp& w, int lane, int column, int other_lane, Tick tick) {
  if (column == w.column && (other_lane == lane || tick <= w.order.lanes_synchronized)) return true;
  if (w.order.known.seen.has(column, other_lane, tick)) return true;
  const Knowledge* const mine = w.order.alone[lane].get();
  return mine && mine->seen.has(column, other_lane, tick);
}

bool knows_fenced(const Warp& w, int lane, int column, int other_lane, Tick tick) {
  if (!is_warp(column)) return true;
  if (w.order.known.fenced.has(column, other_lane, tick)) return true;
  const Knowledge* const mine = w.order.alone[lane].get();
  return mine && mine->fenced.has(column, other_lane, tick);
}

}  // namespace vgpu
