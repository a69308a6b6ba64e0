// A cluster of blocks: their warps run in turn, each until it has to wait; when all wait and
// nothing was released, that is a deadlock.
#include "worker.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "fault.h"
#include "types.h"

namespace vgpu {

Worker::Worker(const Program& program) : program_(program), random_(program.order) {
  const Launch& launch = *program.launch;
  const Code& code = *program.code;
  threads_ = launch.block[0] * launch.block[1] * launch.block[2];
  warps_per_block_ = (threads_ + kLanes - 1) / kLanes;
  const unsigned blocks = launch.cluster[0] * launch.cluster[1] * launch.cluster[2];
  const unsigned count = blocks * warps_per_block_;
  warps_.resize(count);
  polled_.resize(count);
  order_.resize(count);
  std::iota(order_.begin(), order_.end(), 0);
  if (launch.accesses) accesses_ = std::make_unique<GlobalAccesses>("");
  if (counting()) counts_ = std::make_unique<LaunchCounts>(code.ins.size());
  const std::size_t bytes = (code.register_bytes + 63) / 64 * 64;
  registers_.resize(bytes * count + 64);
  const auto start = reinterpret_cast<std::uintptr_t>(registers_.data());
  char* const aligned = registers_.data() + (64 - start % 64) % 64;
  const std::size_t local_of_warp = static_cast<std::size_t>(code.local_bytes) * kLanes;
  local_.resize(local_of_warp * count);
  for (unsigned k = 0; k < count; ++k) {
    warps_[k].registers = aligned + bytes * k;
    warps_[k].local = local_.data() + local_of_warp * k;
  }
  for (unsigned rank = 0; rank < blocks; ++rank) make_block(rank);
}

void Worker::make_block(unsigned rank) {
  const Code& code = *program_.code;
  Block& block = *cluster_.blocks.emplace_back(std::make_unique<Block>(cluster_));
  block.rank = static_cast<int>(rank);
  block.threads = threads_;
  block.warp_count = static_cast<int>(warps_per_block_);
  block.warps = &warps_[rank * warps_per_block_];
  block.random = &random_;
  block.shared_size = code.shared_bytes + program_.launch->dynamic_shared;
  block.shared.resize(block.shared_size, warps_per_block_);
  for (int k = 0; k < block.warp_count; ++k) {
    Warp& w = block.warps[k];
    w.program = &program_;
    w.counts = counts_.get();
    w.accesses = accesses_.get();
    w.block = &block;
    w.index = k;
    w.column = block.rank * kColumns + k;
    for (const Constant& c : code.constants)
      for (int l = 0; l < kLanes; ++l)
        std::memcpy(w.registers + c.slot + l * c.size, &c.bits, c.size);
    set_specials(w);
  }
}

// Special registers that are the same in all blocks of this rank: PTX ISA, "Special Registers".
void Worker::set_specials(Warp& w) const {
  const Launch& launch = *program_.launch;
  const unsigned *const block = launch.block, *const cluster = launch.cluster;
  const auto rank = static_cast<unsigned>(w.block->rank);
  for (const auto& [slot, name] : program_.code->specials)
    for (unsigned l = 0; l < kLanes; ++l) {
      const unsigned thread = kLanes * w.index + l, axis = static_cast<unsigned>(name.back() - 'x');
      unsigned value = 0;
      if (name == "%tid.x")
        value = thread % block[0];
      else if (name == "%tid.y")
        value = thread / block[0] % block[1];
      else if (name == "%tid.z")
        value = thread / block[0] / block[1];
      else if (name.starts_with("%ntid."))
        value = block[axis];
      else if (name.starts_with("%nctaid."))
        value = launch.grid[axis];
      else if (name == "%laneid")
        value = l;
      else if (name == "%warpid")
        value = w.index;
      else if (name == "%nwarpid")
        value = warps_per_block_;
      else if (name == "%lanemask_lt")
        value = (1u << l) - 1;
      else if (name == "%lanemask_eq")
        value = 1u << l;
      else if (name == "%lanemask_le")
        value = (2u << l) - 1;
      else if (name == "%lanemask_ge")
        value = ~((1u << l) - 1);
      else if (name == "%lanemask_gt")
        value = ~((2u << l) - 1);
      else if (name.starts_with("%nclusterid."))
        value = launch.grid[axis] / cluster[axis];
      else if (name.starts_with("%cluster_nctaid."))
        value = cluster[axis];
      else if (name == "%cluster_ctaid.x")
        value = rank % cluster[0];
      else if (name == "%cluster_ctaid.y")
        value = rank / cluster[0] % cluster[1];
      else if (name == "%cluster_ctaid.z")
        value = rank / cluster[0] / cluster[1];
      else if (name == "%cluster_ctarank")
        value = rank;
      else if (name == "%cluster_nctarank")
        value = cluster[0] * cluster[1] * cluster[2];
      else if (name == "%is_explicit_cluster")
        value = launch.explicit_cluster ? ~0u : 0u;
      reg<u32>(w, slot)[l] = value;
    }
}

// The blocks of a cluster are neighbours in the grid.
void Worker::place_blocks(std::uint64_t number) {
  const unsigned *const grid = program_.launch->grid, *const cluster = program_.launch->cluster;
  const unsigned across = grid[0] / cluster[0], down = grid[1] / cluster[1];
  const unsigned at[3] = {static_cast<unsigned>(number % across),
                          static_cast<unsigned>(number / across % down),
                          static_cast<unsigned>(number / across / down)};
  for (const std::unique_ptr<Block>& block : cluster_.blocks) {
    const auto rank = static_cast<unsigned>(block->rank);
    block->id[0] = at[0] * cluster[0] + rank % cluster[0];
    block->id[1] = at[1] * cluster[1] + rank / cluster[0] % cluster[1];
    block->id[2] = at[2] * cluster[2] + rank / cluster[0] / cluster[1];
    for (int k = 0; k < block->warp_count; ++k)
      for (const auto& [slot, name] : program_.code->specials) {
        const unsigned axis = static_cast<unsigned>(name.back() - 'x');
        if (name.starts_with("%ctaid."))
          std::fill_n(reg<u32>(block->warps[k], slot), kLanes, block->id[axis]);
        else if (name.starts_with("%clusterid."))
          std::fill_n(reg<u32>(block->warps[k], slot), kLanes, at[axis]);
      }
  }
}

void Worker::begin_cluster(std::uint64_t number) {
  random_.begin(number);
  for (std::set<int>& places : polled_) places.clear();
  ClusterClock& clock = cluster_.clock;
  if (clock.now > kLastTick / 2) {
    for (const std::unique_ptr<Block>& block : cluster_.blocks) block->shared.forget();
    clock.now = 1;
  }
  clock.first = ++clock.now;
  cluster_.barrier = {};
  cluster_.barrier.live = threads_ * cluster_.size();
  place_blocks(number);
  for (const std::unique_ptr<Block>& block : cluster_.blocks) begin_block(*block);
  warps_alive_ = static_cast<unsigned>(warps_.size());
}

void Worker::begin_block(Block& block) {
  block.shared.last.assign(cluster_.size() * kColumns, block.clock.first - 1);
  block.shared.guest_reads.clear();
  for (Barrier& b : block.barriers) b = {};
  block.mbarriers.clear();
  block.copies.clear();
  block.async_reads.clear();
  block.products.clear();
  block.guests.clear();
  block.grid_waits.clear();
  block.spare_registers = 0;
  block.at_end = {};
  block.warps_alive = block.warp_count;
  for (int k = 0; k < block.warp_count; ++k) begin_warp(block.warps[k]);
}

void Worker::begin_warp(Warp& w) {
  const unsigned lanes = std::min<unsigned>(kLanes, threads_ - kLanes * w.index);
  w.live = lanes == kLanes ? kAllLanes : (1u << lanes) - 1;
  set_active(w, w.live);
  w.pc = 0;
  w.other_groups.clear();
  w.copies.clear();
  std::fill(w.committed, w.committed + kLanes, 0);
  w.waits_at = -1;
  w.cluster_arrived = w.cluster_complete = 0;
  std::fill(w.cluster_waits, w.cluster_waits + kLanes, 0);
  w.grid_waited = 0;
  w.register_count = (program_.launch->registers + 7) / 8 * 8;
  w.product_groups = 0;
  w.products_under_way = 0;
  w.product_fence = false;
  begin_order(w);
}

// A warp has ended: what it started must have been waited for.
void Worker::end_warp(Warp& w) {
  --warps_alive_;
  Block& block = *w.block;
  for (const Product& p : block.products)
    if (p.warp == w.index && !p.waited_for)
      fault(w, program_.code->ins[p.pc], kLaunchFailed, 0,
            "the warp ends with a wgmma that was not waited for");
  if (--block.warps_alive == 0 && block.grid_waits.empty()) every_block_waited_ = false;
  if (cluster_.size() == 1) return;
  release(w, kAllLanes, &block.at_end);
  if (block.warps_alive == 0) check_end_of_block(block);
}

// A warp that finds a phase incomplete may do something else: it hangs when it asks again and again
// at the same places while nobody gets on.
bool Worker::polls_here_first(const Warp& w) {
  return polled_[&w - warps_.data()].insert(w.pc).second;
}

bool Worker::run_warps() {
  bool progress = false;
  random_.shuffle(&order_);
  for (const int k : order_) {
    Warp& w = warps_[k];
    if (w.live == 0 || w.waits_at >= 0) continue;
    bool& progressed = w.block->progressed;
    progressed = false;
    const Stop stop = run_warp(w);
    if (stop != Stop::yield || progressed || polls_here_first(w)) progress = true;
    if (progressed)
      for (std::set<int>& places : polled_) places.clear();
    if (stop == Stop::done) end_warp(w);
  }
  return progress;
}

// Where a warp waits, in words.
std::string Worker::waits_where(const Warp& w) const {
  if (w.live == 0) return "at its end";
  if (w.waits_at < 0 && (w.active & w.cluster_arrived) &&
      program_.code->ins[w.pc].op == Op::cluster_wait) {
    const ClusterBarrier& b = cluster_.barrier;
    return "waiting in barrier.cluster at " + place_of(w, w.pc) + ", where " +
           std::to_string(b.arrived) + " of " + std::to_string(b.live) + " threads have arrived";
  }
  if (w.waits_at < 0 && program_.code->ins[w.pc].op == Op::setmaxnreg)
    return "waiting in setmaxnreg for registers, of which " +
           std::to_string(w.block->spare_registers) + " are spare for each lane, at " +
           place_of(w, w.pc);
  const std::string at = " at " + place_of(w, w.pc - 1);
  if (w.waits_at < 0) return "waiting for an mbarrier's phase, which nobody completes," + at;
  const Barrier& b = w.block->barriers[w.waits_at];
  return "waiting in bar.sync " + std::to_string(w.waits_at) + at + ", where " +
         std::to_string(b.arrived) + " of " +
         std::to_string(b.expected ? b.expected : kLanes * w.block->warp_count) +
         " threads have arrived";
}

void Worker::report_deadlock() {
  std::vector<std::pair<std::string, std::string>> places;  // and the warps there
  for (const std::unique_ptr<Block>& block : cluster_.blocks)
    for (int k = 0; k < block->warp_count; ++k) {
      const Warp& w = block->warps[k];
      std::string place = waits_where(w);
      if (cluster_.size() > 1) place = "of " + block_name(*block) + " is " + place;
      auto known = std::find_if(places.begin(), places.end(),
                                [&](const auto& p) { return p.first == place; });
      if (known == places.end()) known = places.insert(places.end(), {place, ""});
      known->second += (known->second.empty() ? "" : ", ") + std::to_string(w.index);
    }
  std::string text = "deadlock";
  for (const auto& [place, warps] : places)
    text += (text == "deadlock" ? ": warp " : "; warp ") + warps +
            (cluster_.size() > 1 ? " " : " is ") + place;
  const Warp& w = *std::find_if(warps_.begin(), warps_.end(),
                                [](const Warp& waiting) { return waiting.live != 0; });
  fault(w, program_.code->ins[std::max(w.pc - 1, 0)], kLaunchFailed, first_active(w), text);
}

// Groups of a diverged warp wait for each other in turn, which may take rounds.
constexpr int kPatience = 10000;

void Worker::run_cluster(std::uint64_t number) {
  begin_cluster(number);
  int idle = 0;
  while (warps_alive_ > 0) {
    idle = run_warps() ? 0 : idle + 1;
    const bool diverged = std::any_of(warps_.begin(), warps_.end(), [](const Warp& w) {
      return w.live != 0 && !w.other_groups.empty();
    });
    if (idle > (diverged ? kPatience : 0)) report_deadlock();
  }
  check_copies_ended();
}

void Worker::check_copies_ended() const {
  for (const std::unique_ptr<Block>& block : cluster_.blocks) {
    if (block->copies.empty()) continue;
    const BulkCopy& copy = block->copies.front();
    const std::string to = of_block(*copy.warp, *block);
    fault(*copy.warp, program_.code->ins[copy.pc], kLaunchFailed, copy.lane,
          "the block ends with a copy to shared memory" + to + " that nobody has waited for");
  }
}

}  // namespace vgpu
