// What a warp's access to memory costs: passes over shared memory, sectors of global memory.
#pragma once
#include <cstdint>

namespace vgpu {

struct AccessCost {
  unsigned taken = 0;
  unsigned ideal = 0;  // of the best pattern for as many lanes and bytes
};

// Accesses of 8 and 16 bytes go by halves and quarters of the warp; each such part is ideally one
// pass ("wavefront"). Shared memory has 32 banks of 4 bytes: lanes of a part that touch different
// words of one bank wait for each other, lanes that touch the same word do not.
// `addresses` is of all 32 lanes, `lanes` the bits of those that take part, `size` 1 to 16.
AccessCost shared_wavefronts(const std::uint64_t* addresses, std::uint32_t lanes, unsigned size);

// Sectors are 32 bytes; each that the lanes of a part touch is moved once. Ideal are as many as the
// bytes that they touch would fill.
AccessCost global_sectors(const std::uint64_t* addresses, std::uint32_t lanes, unsigned size);

}  // namespace vgpu
