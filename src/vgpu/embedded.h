// What a program that has the virtual GPU within itself (convnet._vgpu) asks of it besides CUDA's
// API. The program's arrays are host memory: it registers what an operation may touch
// (memory_register), runs the operation, finishes it and unregisters.
#pragma once
#include <string>

#include "counters/report.h"
#include "memory.h"

namespace vgpu {

// Runs all work of all devices. Returns the text of what failed while it ran, and forgets that:
// contexts work again. Empty where nothing failed. What a call refused, such as a launch beyond the
// device's limits, it has told its caller, and stderr why.
std::string finish();

}  // namespace vgpu
