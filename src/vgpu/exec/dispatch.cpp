// Which handler for an instruction.
#include "fault.h"
#include "warp.h"

namespace vgpu {
namespace {

void trap(Warp& w, const Ins& i) { fault(w, i, kLaunchFailed, first_active(w), "trap"); }

}  // namespace

void do_nothing(Warp&, const Ins&) {}

Handler handler_of(const Ins& i) {
  switch (i.op) {
    case Op::nothing:
    case Op::fence:
    case Op::setmaxnreg:
    case Op::bra:  // this one and those below: in run_warp()
    case Op::ret:
    case Op::bar_sync:
    case Op::bar_arrive:
    case Op::bar_warp:
      return do_nothing;
    case Op::trap:
      return trap;
    default:
      break;
  }
  for (const auto room : {arithmetic_handler, bits_handler, compare_handler, convert_handler,
                          load_store_handler, atomic_handler, lanes_handler, tensor_handler,
                          async_copy_handler, mbarrier_handler, bulk_copy_handler})
    if (const Handler handler = room(i)) return handler;
  return nullptr;
}

}  // namespace vgpu
