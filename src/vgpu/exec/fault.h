// What is wrong with a kernel, and where.
#pragma once
#include <string>

#include "warp.h"

namespace vgpu {

constexpr int kIllegalAddress = 700, kMisaligned = 716, kLaunchFailed = 719;  // CUresult

// Thrown by an instruction, caught by exec_launch().
struct KernelFault {
  int code;
  std::string text;
};
[[noreturn]] void fault(const Warp& w, const Ins& i, int code, int lane, const std::string& what);

std::string hex(std::uint64_t value);

}  // namespace vgpu
