// setmaxnreg: PTX ISA, "Miscellaneous Instructions: setmaxnreg". What warps give back goes to a pool
// of their block, from which others take, or wait until it is there. Checked where it is known how
// many registers the kernel begins with.
#include "block.h"
#include "fault.h"
#include "types.h"
#include "vgpu/counters/count.h"

namespace vgpu {
namespace {

void set_registers(Warp& w, const Ins& i) {
  const int wanted = static_cast<int>(i.imm), more = wanted - w.register_count;
  if (w.register_count == 0) {
    if (w.counts) count_instruction(w, i);
    return;
  }
  const bool takes = i.combine == 1;
  if (takes ? more < 0 : more > 0)
    fault(w, i, kLaunchFailed, first_active(w),
          std::string("setmaxnreg.") + (takes ? "inc" : "dec") + " to " + std::to_string(wanted) +
              ": the warp has " + std::to_string(w.register_count) + " registers a thread");
  if (more > w.block->spare_registers) {
    w.yields = true;
    --w.pc;
    return;
  }
  if (w.counts) count_instruction(w, i);
  w.block->spare_registers -= more;
  w.register_count = wanted;
  if (more < 0) w.block->progressed = true;
}

}  // namespace

Handler register_pool_handler(const Ins& i) {
  return i.op == Op::setmaxnreg ? set_registers : nullptr;
}

}  // namespace vgpu
