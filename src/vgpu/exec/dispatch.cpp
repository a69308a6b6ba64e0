// Which handler for an instruction.
#include "cluster.h"
#include "fault.h"
#include "grid_dependency.h"
#include "warp.h"

namespace vgpu {
namespace {

// Of memory there is one order here, so only those matter that concern the asynchronous proxy, and
// those after which something relaxed tells other blocks of a cluster.
void fence(Warp& w, const Ins& i) {
  if (i.combine == 1) fence_proxies(w, w.active);
  if (i.combine == 2) fence_mbarrier_init(w, w.active);
  if (i.combine == 3 && w.block->cluster.size() > 1) fence_memory(w, w.active);
}
void synchronize_warp(Warp& w, const Ins& i) {
  synchronize_lanes(w, reg<std::uint32_t>(w, i.a)[first_active(w)] & w.live);
}
void trap(Warp& w, const Ins& i) { fault(w, i, kLaunchFailed, first_active(w), "trap"); }

}  // namespace

void do_nothing(Warp&, const Ins&) {}

Handler handler_of(const Ins& i) {
  switch (i.op) {
    case Op::nothing:
    case Op::bra:  // this one and those below: in run_warp()
    case Op::ret:
    case Op::bar_sync:
    case Op::bar_arrive:
      return do_nothing;
    case Op::bar_warp:
      return synchronize_warp;
    case Op::fence:
      return fence;
    case Op::grid_wait:
      return wait_for_grids;
    case Op::trap:
      return trap;
    default:
      break;
  }
  for (const auto room :
       {arithmetic_handler, bits_handler, compare_handler, convert_handler, load_store_handler,
        atomic_handler, lanes_handler, tensor_handler, async_copy_handler, mbarrier_handler,
        bulk_copy_handler, wgmma_handler, cluster_handler, register_pool_handler})
    if (const Handler handler = room(i)) return handler;
  return nullptr;
}

}  // namespace vgpu
