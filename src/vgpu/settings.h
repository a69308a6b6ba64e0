// What the environment says. Every variable is read once a process, at its first use.
#pragma once
#include <string>

namespace vgpu {

int env(const char* name, int otherwise);  // a number; `otherwise` where it is unset or empty
std::string env_text(const char* name, const char* otherwise);

// VGPU_LOG: 0 nothing, 1 calls of the API and modules, 2 also attributes, 3 also look-ups of names.
int log_level();

}  // namespace vgpu
