// A thread of the CPU, which runs clusters of blocks one after another.
#pragma once
#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "cluster.h"
#include "grid_dependency.h"
#include "random.h"
#include "vgpu/counters/counters.h"
#include "warp.h"

namespace vgpu {

class Worker {
 public:
  explicit Worker(const Program& program);
  void run_cluster(std::uint64_t number);
  const LaunchCounts* counts() const { return counts_.get(); }  // null where nothing is counted
  // What its blocks touched, null where that is not noted; and whether they have all executed
  // griddepcontrol.wait.
  const GlobalAccesses* accesses() const { return accesses_.get(); }
  bool every_block_waited() const { return every_block_waited_; }

 private:
  void make_block(unsigned rank);
  void set_specials(Warp& w) const;
  void begin_cluster(std::uint64_t number);
  void place_blocks(std::uint64_t number);
  void begin_block(Block& block);
  void begin_warp(Warp& w);
  void end_warp(Warp& w);
  bool run_warps();
  bool polls_here_first(const Warp& w);
  std::string waits_where(const Warp& w) const;
  [[noreturn]] void report_deadlock();
  void check_copies_ended() const;

  const Program& program_;
  std::unique_ptr<LaunchCounts> counts_;
  std::unique_ptr<GlobalAccesses> accesses_;
  bool every_block_waited_ = true;
  unsigned threads_, warps_per_block_;
  unsigned warps_alive_ = 0;
  Random random_;
  std::vector<int> order_;  // of the warps
  Cluster cluster_;
  std::vector<Warp> warps_;            // of all its blocks, by rank
  std::vector<std::set<int>> polled_;  // of each warp, since the last progress: places
  std::vector<char> registers_, local_;
};

}  // namespace vgpu
