// Vector clocks: what of a block's accesses to shared memory is known to have happened before.
//
// A block counts ticks, one for each operation that lets others know something: an arrival at a
// barrier, a fence. An access has the tick at which it was made. Whoever has synchronized with a
// warp has seen all its accesses up to some tick, and may touch what they touched.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace vgpu {

using Tick = std::uint32_t;

// Who makes accesses: the warps; the unit that copies, a column for each mbarrier that counts its
// bytes; and wgmma, which reads shared memory for a warp until that waits for it.
constexpr int kWarpColumns = 32, kCopyColumns = 32;
constexpr int kFirstCopyColumn = kWarpColumns;
constexpr int kFirstProductColumn = kFirstCopyColumn + kCopyColumns;
constexpr int kColumns = kFirstProductColumn + kWarpColumns;

struct VectorClock {
  std::array<Tick, kColumns> seen{};

  // A thread that is further ahead than its warp's column says.
  struct Thread {
    int column, lane;
    Tick tick;
  };
  std::vector<Thread> threads;

  void join(const VectorClock& other) {
    for (int c = 0; c < kColumns; ++c) seen[c] = seen[c] > other.seen[c] ? seen[c] : other.seen[c];
    for (const Thread& t : other.threads) add(t);
    std::erase_if(threads, [&](const Thread& t) { return t.tick <= seen[t.column]; });
  }
  void add(const Thread& t) {
    if (t.tick <= seen[t.column]) return;
    for (Thread& mine : threads)
      if (mine.column == t.column && mine.lane == t.lane) {
        mine.tick = mine.tick > t.tick ? mine.tick : t.tick;
        return;
      }
    threads.push_back(t);
  }
  bool has(int column, int lane, Tick tick) const {
    if (tick <= seen[column]) return true;
    for (const Thread& t : threads)
      if (t.column == column && t.lane == lane && tick <= t.tick) return true;
    return false;
  }
};

// `fenced`: the ordinary writes that the asynchronous proxy (copies, wgmma) sees too, because of a
// fence.proxy.async on the way: PTX ISA, "Memory Consistency Model: Proxy-preserved base causality
// order".
struct Knowledge {
  VectorClock seen, fenced;

  void join(const Knowledge& other) {
    seen.join(other.seen);
    fenced.join(other.fenced);
  }
};

}  // namespace vgpu
