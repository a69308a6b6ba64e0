// A block: its warps run in turn, each until it has to wait; when all wait and nothing was
// released, that is a deadlock.
#include "worker.h"

#include <algorithm>
#include <cstring>

#include "fault.h"
#include "types.h"

namespace vgpu {

Worker::Worker(const Program& program) : program_(program) {
  const Launch& launch = *program.launch;
  const Code& code = *program.code;
  threads_ = launch.block[0] * launch.block[1] * launch.block[2];
  const unsigned count = (threads_ + kLanes - 1) / kLanes;
  warps_.resize(count);
  if (counting()) counts_ = std::make_unique<LaunchCounts>(code.ins.size());
  const std::size_t bytes = (code.register_bytes + 63) / 64 * 64;
  registers_.resize(bytes * count + 64);
  const auto start = reinterpret_cast<std::uintptr_t>(registers_.data());
  char* const aligned = registers_.data() + (64 - start % 64) % 64;
  const std::size_t local_of_warp = static_cast<std::size_t>(code.local_bytes) * kLanes;
  local_.resize(local_of_warp * count);
  block_.shared.resize(code.shared_bytes + launch.dynamic_shared);
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
  const unsigned* const grid = program_.launch->grid;
  block_.id[0] = static_cast<unsigned>(number % grid[0]);
  block_.id[1] = static_cast<unsigned>(number / grid[0] % grid[1]);
  block_.id[2] = static_cast<unsigned>(number / grid[0] / grid[1]);
  block_.shared.first_epoch = ++block_.shared.epoch;
  for (Barrier& b : block_.barriers) b = {};
  for (Warp& w : warps_) {
    const unsigned lanes = std::min<unsigned>(kLanes, threads_ - kLanes * w.index);
    w.live = lanes == kLanes ? kAllLanes : (1u << lanes) - 1;
    set_active(w, w.live);
    w.pc = 0;
    w.other_groups.clear();
    w.copies.clear();
    std::fill(w.committed, w.committed + kLanes, 0);
    w.waits_at = -1;
    for (const auto& [slot, name] : program_.code->specials)
      if (name.starts_with("%ctaid."))
        std::fill_n(reg<u32>(w, slot), kLanes, block_.id[name[7] - 'x']);
  }
  warps_alive_ = static_cast<unsigned>(warps_.size());
}

bool Worker::run_warps() {
  bool progress = false;
  for (Warp& w : warps_) {
    if (w.live == 0 || w.waits_at >= 0) continue;
    block_.mbarrier_changed = false;
    const Stop stop = run_warp(w);
    if (stop != Stop::yield || block_.mbarrier_changed) progress = true;
    if (stop == Stop::done) --warps_alive_;
    if (stop == Stop::barrier) block_.barriers[w.waits_at].arrived += kLanes;
  }
  return progress;
}

bool Worker::release_barriers() {
  bool progress = false;
  for (int id = 0; id < 16; ++id) {
    Barrier& b = block_.barriers[id];
    const unsigned expected = b.expected ? b.expected : kLanes * warps_alive_;
    if (b.arrived == 0 || b.arrived < expected) continue;
    b.arrived = 0;
    progress = true;
    ++block_.shared.epoch;
    for (Warp& w : warps_)
      if (w.waits_at == id) w.waits_at = -1;
  }
  return progress;
}

void Worker::report_deadlock() {
  const auto waiting =
      std::find_if(warps_.begin(), warps_.end(), [](const Warp& w) { return w.live != 0; });
  const Warp& w = *waiting;
  fault(w, program_.code->ins[w.pc - 1], kLaunchFailed, std::countr_zero(w.live),
        w.waits_at >= 0
            ? "deadlock: this warp waits at barrier " + std::to_string(w.waits_at) +
                  " for warps that wait elsewhere"
            : "deadlock: this warp waits for an mbarrier's phase that nobody can complete");
}

void Worker::run_block(std::uint64_t number) {
  begin_block(number);
  while (warps_alive_ > 0) {
    const bool ran = run_warps(), released = release_barriers();
    if (!ran && !released) report_deadlock();
  }
}

}  // namespace vgpu
