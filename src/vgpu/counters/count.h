// The hooks of the interpreter: what it calls for each instruction where a launch is counted.
#pragma once
#include <cstddef>
#include <cstdint>

#include "vgpu/exec/warp.h"

namespace vgpu {

// The instruction at w.pc, for its active lanes, before it is executed.
void count_instruction(Warp& w, const Ins& i);
// A bulk copy that the instruction at w.pc starts: its elements, in the order of their coordinates,
// are counted as runs of addresses that follow each other.
class BulkCopyCount {
 public:
  // It goes to so many blocks.
  BulkCopyCount(Warp& w, std::size_t blocks) : warp_(w), blocks_(blocks) {}
  ~BulkCopyCount() { end_run(); }
  // An element from global memory to shared memory; from 0 where it is filled with zeros.
  void add(std::uint64_t from, std::uint64_t bytes);

 private:
  void end_run();

  Warp& warp_;
  std::size_t blocks_;
  std::uint64_t from_ = 0, bytes_ = 0;
};

}  // namespace vgpu
