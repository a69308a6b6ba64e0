#include "vgpu/counters/count.h"

#include <bit>

#include "vgpu/counters/access.h"
#include "vgpu/counters/counters.h"
#include "vgpu/exec/load_store.h"
#include "vgpu/exec/types.h"

namespace vgpu {
namespace {

constexpr int kWindowShift = 56;  // of generic addresses: 0 global, 1 shared

void count_shared(SiteCounts& site, const u64* a, u32 lanes, unsigned size) {
  const AccessCost cost = shared_wavefronts(a, lanes, size);
  site.wavefronts += cost.taken;
  site.ideal_wavefronts += cost.ideal;
  site.shared_bytes += static_cast<u64>(std::popcount(lanes)) * size;
}

void count_global(LaunchCounts& counts, SiteCounts& site, const u64* a, u32 lanes, unsigned size,
                  bool reads, bool writes) {
  const AccessCost cost = global_sectors(a, lanes, size);
  site.sectors += cost.taken;
  site.ideal_sectors += cost.ideal;
  site.global_bytes += static_cast<u64>(std::popcount(lanes)) * size;
  for (u32 rest = lanes; rest; rest &= rest - 1) {
    const u64 at = a[std::countr_zero(rest)];
    if (reads) counts.read.touch(at, size);
    if (writes) counts.written.touch(at, size);
  }
}

// ld, st and atom. The lanes of a generic access may be in both kinds of memory.
void count_access(Warp& w, const Ins& i, SiteCounts& site) {
  const unsigned size = size_of(i.type) * (i.op == Op::atom ? 1 : i.vector);
  u64 a[kLanes];
  addresses(w, i, a);
  u32 shared = i.space == Space::shared || i.space == Space::cluster ? w.active : 0;
  u32 global = i.space == Space::global ? w.active : 0;
  if (i.space == Space::generic)
    each_active_lane(w, [&](int l) {
      const u64 window = a[l] >> kWindowShift;
      if (window == 0) global |= 1u << l;
      if (window == 1) shared |= 1u << l;
      a[l] &= (u64{1} << kWindowShift) - 1;
    });
  if (shared) count_shared(site, a, shared, size);
  if (global) count_global(*w.counts, site, a, global, size, i.op != Op::st, i.op != Op::ld);
  site.other_bytes += static_cast<u64>(std::popcount(w.active & ~shared & ~global)) * size;
}

// The rows of each of its matrices are one access of a quarter of the warp.
void count_ldmatrix(Warp& w, const Ins& i, SiteCounts& site) {
  u64 a[kLanes];
  addresses(w, i, a);
  const u32 lanes = i.vector == 4 ? kAllLanes : (1u << (8 * i.vector)) - 1;
  count_shared(site, a, lanes, 16);
}

void count_cp_async(Warp& w, const Ins& i, SiteCounts& site) {
  u64 to[kLanes];
  addresses(w, i, to);
  count_shared(site, to, w.active, i.vector);
  u32 reads = w.active;
  if (i.c >= 0)
    each_active_lane(w, [&](int l) {
      if (reg<u32>(w, i.c)[l] == 0) reads &= ~(1u << l);
    });
  if (reads) count_global(*w.counts, site, reg<u64>(w, i.b), reads, i.vector, true, false);
}

}  // namespace

void count_instruction(Warp& w, const Ins& i) {
  SiteCounts& site = w.counts->sites[w.pc];
  ++site.executions;
  site.lanes += std::popcount(w.active);
  switch (i.op) {
    case Op::ld:
    case Op::st:
    case Op::atom:
      return count_access(w, i, site);
    case Op::ldmatrix:
      return count_ldmatrix(w, i, site);
    case Op::cp_async:
      return count_cp_async(w, i, site);
    default:
      return;
  }
}

void BulkCopyCount::add(u64 from, u64 bytes) {
  if (!warp_.counts) return;
  warp_.counts->sites[warp_.pc].shared_bytes += blocks_ * bytes;
  if (!from || from != from_ + bytes_) end_run();
  if (!from) return;
  if (bytes_ == 0) from_ = from;
  bytes_ += bytes;
}

void BulkCopyCount::end_run() {
  if (bytes_ == 0) return;
  SiteCounts& site = warp_.counts->sites[warp_.pc];
  site.global_bytes += bytes_;
  site.sectors += (from_ + bytes_ - 1) / 32 - from_ / 32 + 1;
  site.ideal_sectors += (bytes_ + 31) / 32;
  warp_.counts->read.touch(from_, bytes_);
  bytes_ = 0;
}

}  // namespace vgpu
