// How many registers ptxas gave a kernel. PTX does not tell; a table from a build with machine code
// does (VGPU_REGISTERS, as src/kernels/check_build.py --registers writes it).
#pragma once
#include <string>

namespace vgpu {

// Registers of a thread on the device's compute capability; 0 where no table says so.
int registers_of(const std::string& kernel);
bool has_register_table();

// A block's registers, as a multiprocessor hands them out: to each warp in units of 256, and to warps
// in fours.
long registers_of_block(int registers, long threads);

}  // namespace vgpu
