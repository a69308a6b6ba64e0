// What kind of work an instruction is.
#pragma once
#include <cstdint>

#include "vgpu/ptx/instruction.h"

namespace vgpu {

enum class Kind : std::uint8_t {
  integer,   // and logic, comparisons of integers, selections
  floating,  // and comparisons of floats
  convert,
  move,  // and packing: most of them, ptxas removes
  global_load,
  global_store,
  shared_load,
  shared_store,
  local,
  parameter,  // and constants
  atomic,
  async_copy,  // cp.async, bulk and tensor copies
  tensor,
  lanes,  // shuffles and votes
  barrier,
  control,
  other
};
constexpr int kKinds = static_cast<int>(Kind::other) + 1;

const char* name_of(Kind kind);
// A generic access counts as one to global memory.
Kind kind_of(const Ins& i);
// Of one lane, or of a warp for tensor instructions: a multiply-add is two.
std::uint64_t flops_of(const Ins& i);
inline bool is_tensor(const Ins& i) { return i.op == Op::mma || i.op == Op::wgmma; }

}  // namespace vgpu
