// An instruction of a run costs the 32 multiply-adds and little else: neither the scheduler nor the
// decoded instruction is looked at, only the places of its operands, which lie together.
#include "runs.h"

#include <cmath>

#include "rounding.h"
#include "types.h"

namespace vgpu {
namespace {

void multiply_adds(Warp& w, const Ins&) {
  const MultiplyAdd* const first = &w.program->multiply_adds[w.pc];
  const MultiplyAdd* const end = first + first->run;
  for (const MultiplyAdd* m = first; m != end; ++m) {
    const float *const a = reg<float>(w, m->a), *const b = reg<float>(w, m->b),
                       *const c = reg<float>(w, m->c);
    write_lanes(w, reg<float>(w, m->d), [&](int l) { return std::fma(a[l], b[l], c[l]); });
  }
  w.pc += first->run - 1;
}

bool joins(const Ins& i) {
  return i.op == Op::fma && i.type == Type::f32 && i.pred < 0 && !i.ftz && !i.sat &&
         !is_directed(i.round);
}

}  // namespace

void join_multiply_adds(Program& p) {
  const std::vector<Ins>& ins = p.code->ins;
  p.multiply_adds.resize(ins.size());
  for (std::size_t at = ins.size(); at-- > 0;) {
    const Ins& i = ins[at];
    if (!joins(i)) continue;
    // A diverged warp looks at each leader whether other lanes wait there.
    const bool goes_on = at + 1 < ins.size() && !ins[at + 1].leader;
    const int after = goes_on ? p.multiply_adds[at + 1].run : 0;
    p.multiply_adds[at] = {i.d, i.a, i.b, i.c, after + 1};
    if (after > 0) p.handlers[at] = multiply_adds;
  }
}

}  // namespace vgpu
