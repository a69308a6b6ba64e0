#include "grid_dependency.h"

#include <algorithm>

#include "block.h"
#include "cluster.h"
#include "fault.h"
#include "load_store.h"
#include "types.h"

namespace vgpu {

void GlobalAccesses::clear() {
  pages_.clear();
  before_.clear();
}

void GlobalAccesses::note(u64 address, u64 size, bool reads, bool writes) {
  for (u64 at = address; at < address + size; ++at) {
    Page& page = pages_[at / kPage];
    if (reads) page.read.set(at % kPage);
    if (writes) page.written.set(at % kPage);
  }
}

void GlobalAccesses::merge(const GlobalAccesses& other) {
  for (const auto& [number, page] : other.pages_) {
    pages_[number].read |= page.read;
    pages_[number].written |= page.written;
  }
}

std::string GlobalAccesses::conflict(u64 address, u64 size, bool writes) const {
  for (u64 at = address; at < address + size; ++at) {
    const auto page = pages_.find(at / kPage);
    if (page == pages_.end()) continue;
    if (page->second.written[at % kPage] || (writes && page->second.read[at % kPage]))
      return kernel_;
  }
  for (const auto& each : before_)
    if (std::string kernel = each->conflict(address, size, writes); !kernel.empty()) return kernel;
  return "";
}

bool watches_memory(const Launch& launch) { return launch.accesses || !launch.may_run.empty(); }

namespace {

// Whether the lane has waited, or knows that another thread has.
bool has_waited(const Warp& w, int lane) {
  if (w.grid_waited >> lane & 1) return true;
  return std::any_of(w.block->grid_waits.begin(), w.block->grid_waits.end(),
                     [&](const auto& t) { return knows(w, lane, t.column, t.lane, t.tick); });
}

}  // namespace

void watch_access(Warp& w, const Ins& i, u64 address, u64 size, int lane, bool reads, bool writes) {
  const Launch& launch = *w.program->launch;
  if (w.accesses) w.accesses->note(address, size, reads, writes);
  if (launch.may_run.empty() || has_waited(w, lane)) return;
  for (const auto& before : launch.may_run) {
    const std::string kernel = before->conflict(address, size, writes);
    if (kernel.empty()) continue;
    fault(w, i, kLaunchFailed, lane,
          std::string(writes ? "write" : "read") + " of " + std::to_string(size) + " bytes at " +
              hex(address) + " before griddepcontrol.wait: the kernel " + demangled(kernel) +
              ", which may still run, touches them");
  }
}

void watch_instruction(Warp& w, const Ins& i) {
  u64 a[kLanes];
  if (i.op == Op::cp_async) {
    each_active_lane(w, [&](int l) {
      const u64 size = i.c < 0 ? i.vector : std::min<u64>(i.vector, reg<u32>(w, i.c)[l]);
      watch_access(w, i, reg<u64>(w, i.b)[l], size, l, true, false);
    });
    return;
  }
  const bool memory = i.op == Op::ld || i.op == Op::st || i.op == Op::atom;
  if (!memory || (i.space != Space::global && i.space != Space::generic)) return;
  addresses(w, i, a);
  const unsigned size = size_of(i.type) * (i.op == Op::atom ? 1 : i.vector);
  each_active_lane(w, [&](int l) {
    if (a[l] >> 56 == 0)  // no window of another space
      watch_access(w, i, a[l], size, l, i.op != Op::st, i.op != Op::ld);
  });
}

void wait_for_grids(Warp& w, const Ins&) {
  w.grid_waited |= w.active;
  each_active_lane(
      w, [&](int l) { w.block->grid_waits.push_back({w.column, l, w.block->clock.now}); });
}

}  // namespace vgpu
