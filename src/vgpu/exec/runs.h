// Runs of multiply-adds, the inner loops of products: executed by one handler.
#pragma once
#include "warp.h"

namespace vgpu {

// Gives the multiply-adds of the program that follow upon each other a handler that executes those
// from its own place on. Not for programs whose instructions are counted one by one.
void join_multiply_adds(Program& p);

}  // namespace vgpu
