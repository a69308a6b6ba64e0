// What mma and wgmma have in common.
#pragma once
#include "warp.h"

namespace vgpu {

// The 16 rows of A from four registers: 8 columns of TF32, one a register, or 16 of bfloat16, two a
// register.
void read_a(const Warp& w, const int* slots, int depth, float (*a)[16]);

}  // namespace vgpu
