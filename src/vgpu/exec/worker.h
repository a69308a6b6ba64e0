// A thread of the CPU, which runs blocks one after another.
#pragma once
#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "block.h"
#include "random.h"
#include "vgpu/counters/counters.h"
#include "warp.h"

namespace vgpu {

class Worker {
 public:
  explicit Worker(const Program& program);
  void run_block(std::uint64_t number);
  std::uint64_t steps() const;
  const LaunchCounts* counts() const { return counts_.get(); }  // null where nothing is counted

 private:
  void set_specials(Warp& w) const;
  void begin_block(std::uint64_t number);
  void end_warp(const Warp& w);
  bool run_warps();
  bool polls_here_first(const Warp& w);
  std::string waits_where(const Warp& w) const;
  [[noreturn]] void report_deadlock();

  const Program& program_;
  std::unique_ptr<LaunchCounts> counts_;
  unsigned threads_;
  unsigned warps_alive_ = 0;
  Random random_;
  std::vector<int> order_;  // of the warps
  Block block_;
  std::vector<Warp> warps_;
  std::vector<std::set<int>> polled_;  // of each warp, since the last progress: places
  std::vector<char> registers_, local_;
};

}  // namespace vgpu
