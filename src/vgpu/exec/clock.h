// Vector clocks: what of a cluster's accesses to shared memory is known to have happened before.
//
// The blocks of a cluster, most often one, count ticks together, one for each operation that lets
// others know something: an arrival at a barrier, a fence. An access has the tick at which it was
// made. Whoever has synchronized with a warp has seen all its accesses up to some tick, and may
// touch what they touched.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace vgpu {

using Tick = std::uint32_t;

// Who makes accesses: the warps; the unit that copies, a column for each mbarrier that counts its
// bytes; and wgmma, which reads shared memory for a warp until that waits for it. Each block of a
// cluster has so many columns, those of rank 0 first.
constexpr int kWarpColumns = 32, kCopyColumns = 32;
constexpr int kFirstCopyColumn = kWarpColumns;
constexpr int kFirstProductColumn = kFirstCopyColumn + kCopyColumns;
constexpr int kColumns = kFirstProductColumn + kWarpColumns;

constexpr int rank_of(int column) { return column / kColumns; }
constexpr bool is_warp(int column) { return column % kColumns < kFirstCopyColumn; }

struct VectorClock {
  std::array<Tick, kColumns> first{};  // of the first block
  std::vector<Tick> others;            // of the others, as far as anything of them was seen

  // A thread that is further ahead than its warp's column says.
  struct Thread {
    int column, lane;
    Tick tick;
  };
  std::vector<Thread> threads;

  Tick at(int column) const {
    if (column < kColumns) return first[column];
    const auto c = static_cast<std::size_t>(column - kColumns);
    return c < others.size() ? others[c] : 0;
  }
  void set(int column, Tick tick) {
    if (column < kColumns) {
      first[column] = tick;
      return;
    }
    const auto c = static_cast<std::size_t>(column - kColumns);
    if (others.size() <= c) others.resize((c / kColumns + 1) * kColumns);
    others[c] = tick;
  }
  void begin(Tick tick) {
    first.fill(tick);
    others.clear();
    threads.clear();
  }
  void join(const VectorClock& other) {
    const auto later = [](Tick a, Tick b) { return a > b ? a : b; };
    for (int c = 0; c < kColumns; ++c) first[c] = later(first[c], other.first[c]);
    if (others.size() < other.others.size()) others.resize(other.others.size());
    for (std::size_t c = 0; c < other.others.size(); ++c)
      others[c] = later(others[c], other.others[c]);
    for (const Thread& t : other.threads) add(t);
    std::erase_if(threads, [&](const Thread& t) { return t.tick <= at(t.column); });
  }
  void add(const Thread& t) {
    if (t.tick <= at(t.column)) return;
    for (Thread& mine : threads)
      if (mine.column == t.column && mine.lane == t.lane) {
        mine.tick = mine.tick > t.tick ? mine.tick : t.tick;
        return;
      }
    threads.push_back(t);
  }
  bool has(int column, int lane, Tick tick) const {
    if (tick <= at(column)) return true;
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
