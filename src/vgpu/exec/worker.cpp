// A block: its warps run in turn, each until it has to wait; when all wait and nothing was
// released, that is a deadlock.
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
  const unsigned count = (threads_ + kLanes - 1) / kLanes;
  warps_.resize(count);
  polled_.resize(count);
  order_.resize(count);
  std::iota(order_.begin(), order_.end(), 0);
  if (counting()) counts_ = std::make_unique<LaunchCounts>(code.ins.size());
  const std::size_t bytes = (code.register_bytes + 63) / 64 * 64;
  registers_.resize(bytes * count + 64);
  const auto start = reinterpret_cast<std::uintptr_t>(registers_.data());
  char* const aligned = registers_.data() + (64 - start % 64) % 64;
  const std::size_t local_of_warp = static_cast<std::size_t>(code.local_bytes) * kLanes;
  local_.resize(local_of_warp * count);
  block_.threads = threads_;
  block_.warp_count = static_cast<int>(count);
  block_.warps = warps_.data();
  block_.random = &random_;
  block_.shared_size = code.shared_bytes + launch.dynamic_shared;
  block_.shared.resize(block_.shared_size, count);
  for (unsigned k = 0; k < count; ++k) {
    Warp& w = warps_[k];
    w.registers = aligned + bytes * k;
    w.program = &program;
    w.counts = counts_.get();
    w.block = &block_;
    w.local = local_.data() + local_of_warp * k;
    w.index = static_cast<int>(k);
    for (const Constant& c : code.constants)
      for (int l = 0; l < kLanes; ++l)
        std::memcpy(w.registers + c.slot + l * c.size, &c.bits, c.size);
    set_specials(w);
  }
}

std::uint64_t Worker::steps() const {
  std::uint64_t sum = 0;
  for (const Warp& w : warps_) sum += w.steps;
  return sum;
}

// Special registers that are the same in all blocks: PTX ISA, "Special Registers".
void Worker::set_specials(Warp& w) const {
  const unsigned* const block = program_.launch->block;
  for (const auto& [slot, name] : program_.code->specials)
    for (unsigned l = 0; l < kLanes; ++l) {
      const unsigned thread = kLanes * w.index + l;
      unsigned value = 0;
      if (name == "%tid.x")
        value = thread % block[0];
      else if (name == "%tid.y")
        value = thread / block[0] % block[1];
      else if (name == "%tid.z")
        value = thread / block[0] / block[1];
      else if (name.starts_with("%ntid."))
        value = block[name[6] - 'x'];
      else if (name.starts_with("%nctaid."))
        value = program_.launch->grid[name[8] - 'x'];
      else if (name == "%laneid")
        value = l;
      else if (name == "%warpid")
        value = w.index;
      else if (name == "%nwarpid")
        value = static_cast<unsigned>(warps_.size());
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
      reg<u32>(w, slot)[l] = value;
    }
}

void Worker::begin_block(std::uint64_t number) {
  random_.begin(number);
  for (std::set<int>& places : polled_) places.clear();
  const unsigned* const grid = program_.launch->grid;
  block_.id[0] = static_cast<unsigned>(number % grid[0]);
  block_.id[1] = static_cast<unsigned>(number / grid[0] % grid[1]);
  block_.id[2] = static_cast<unsigned>(number / grid[0] / grid[1]);
  BlockClock& clock = block_.clock;
  if (clock.now > kLastTick / 2) {
    block_.shared.forget();
    clock.now = 1;
  }
  clock.first = ++clock.now;
  clock.last.fill(clock.first - 1);
  for (Barrier& b : block_.barriers) b = {};
  block_.mbarriers.clear();
  block_.copies.clear();
  block_.products.clear();
  for (Warp& w : warps_) {
    const unsigned lanes = std::min<unsigned>(kLanes, threads_ - kLanes * w.index);
    w.live = lanes == kLanes ? kAllLanes : (1u << lanes) - 1;
    set_active(w, w.live);
    w.pc = 0;
    w.other_groups.clear();
    w.copies.clear();
    std::fill(w.committed, w.committed + kLanes, 0);
    w.waits_at = -1;
    w.product_groups = 0;
    w.products_under_way = 0;
    w.product_fence = false;
    begin_order(w);
    for (const auto& [slot, name] : program_.code->specials)
      if (name.starts_with("%ctaid."))
        std::fill_n(reg<u32>(w, slot), kLanes, block_.id[name[7] - 'x']);
  }
  warps_alive_ = static_cast<unsigned>(warps_.size());
}

// A warp has ended: what it started must have been waited for.
void Worker::end_warp(const Warp& w) {
  --warps_alive_;
  for (const Product& p : block_.products)
    if (p.warp == w.index && !p.waited_for)
      fault(w, program_.code->ins[p.pc], kLaunchFailed, 0,
            "the warp ends with a wgmma that was not waited for");
}

// A warp that finds a phase incomplete may do something else: it hangs when it asks again and again
// at the same places while nobody gets on.
bool Worker::polls_here_first(const Warp& w) { return polled_[w.index].insert(w.pc).second; }

bool Worker::run_warps() {
  bool progress = false;
  random_.shuffle(&order_);
  for (const int k : order_) {
    Warp& w = warps_[k];
    if (w.live == 0 || w.waits_at >= 0) continue;
    block_.progressed = false;
    const Stop stop = run_warp(w);
    if (stop != Stop::yield || block_.progressed || polls_here_first(w)) progress = true;
    if (block_.progressed)
      for (std::set<int>& places : polled_) places.clear();
    if (stop == Stop::done) end_warp(w);
  }
  return progress;
}

// Where a warp waits, in words.
std::string Worker::waits_where(const Warp& w) const {
  if (w.live == 0) return "at its end";
  const std::string at = " at " + place_of(w, w.pc - 1);
  if (w.waits_at < 0) return "waiting for an mbarrier's phase, which nobody completes," + at;
  const Barrier& b = block_.barriers[w.waits_at];
  return "waiting in bar.sync " + std::to_string(w.waits_at) + at + ", where " +
         std::to_string(b.arrived) + " of " +
         std::to_string(b.expected ? b.expected : kLanes * block_.warp_count) +
         " threads have arrived";
}

void Worker::report_deadlock() {
  std::vector<std::pair<std::string, std::string>> places;  // and the warps there
  for (const Warp& w : warps_) {
    const std::string place = waits_where(w);
    auto known =
        std::find_if(places.begin(), places.end(), [&](const auto& p) { return p.first == place; });
    if (known == places.end()) known = places.insert(places.end(), {place, ""});
    known->second += (known->second.empty() ? "" : ", ") + std::to_string(w.index);
  }
  std::string text = "deadlock";
  for (const auto& [place, warps] : places)
    text += (text == "deadlock" ? ": warp " : "; warp ") + warps + " is " + place;
  const Warp& w = *std::find_if(warps_.begin(), warps_.end(),
                                [](const Warp& waiting) { return waiting.live != 0; });
  fault(w, program_.code->ins[w.pc - 1], kLaunchFailed, first_active(w), text);
}

// Groups of a diverged warp wait for each other in turn, which may take rounds.
constexpr int kPatience = 10000;

void Worker::run_block(std::uint64_t number) {
  begin_block(number);
  int idle = 0;
  while (warps_alive_ > 0) {
    idle = run_warps() ? 0 : idle + 1;
    const bool diverged = std::any_of(warps_.begin(), warps_.end(), [](const Warp& w) {
      return w.live != 0 && !w.other_groups.empty();
    });
    if (idle > (diverged ? kPatience : 0)) report_deadlock();
  }
  if (block_.copies.empty()) return;
  const BulkCopy& copy = block_.copies.front();
  fault(warps_[copy.warp], program_.code->ins[copy.pc], kLaunchFailed, copy.lane,
        "the block ends with a copy to shared memory that nobody has waited for");
}

}  // namespace vgpu
