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
// "thread (3, 0, 0)"
std::string thread_name(const Warp& w, int warp, int lane);
// "block (1, 0, 0)"
std::string block_name(const Block& block);
// "conv.cu:29" of an instruction, with the calls it was inlined by.
std::string place_of(const Warp& w, int pc);

}  // namespace vgpu
