// What a program asks of the counters.
#pragma once
#include <string>

namespace vgpu {

void counters_start();  // forgets what was counted; from now on, launches are counted
void counters_stop();
bool counting();

// All that was counted, as JSON: a list of kernels, by name. See docs/virtual-gpu.md.
std::string counters_json();

}  // namespace vgpu
