// Products of a warpgroup under way: PTX ISA, "Asynchronous warpgroup-level matrix instructions".
#pragma once
#include <cstdint>

#include "order.h"
#include "warp.h"

namespace vgpu {

// A wgmma.mma_async and what it reads of shared memory. When it has been waited for it stays, as a
// read of its warp, until the same operand is read again.
struct Product {
  int warp;
  std::uint64_t descriptor;
  int columns;
  std::uint32_t begin, end;  // the bytes that it reads lie in here
  int pc;
  std::uint32_t group;
  Tick waited_for;  // 0: under way
};

// Before [begin, end) of a block's memory is written, by a lane or a copy that it starts: whether a
// product or a copy may still read it.
void check_asynchronous_reads(Warp& w, const Ins& i, Block& block, std::uint32_t begin,
                              std::uint32_t end, int lane);
// Before an instruction is executed while products are under way: whether it touches their
// registers.
void check_registers_of_products(Warp& w, const Ins& i);

}  // namespace vgpu
