// Places for a kernel's virtual registers. A kernel has up to thousands of them, at 128 or 256
// bytes a warp each, which would not stay in a cache; few are alive at once.
#pragma once
#include <vector>

#include "vgpu/ptx/instruction.h"
#include "vgpu/ptx/names.h"

namespace vgpu::ptx {

// Replaces the numbers of virtual registers in `code` by byte offsets and sets its register_bytes.
// `fixed` ones (constants, special registers) keep their place for the whole kernel.
void allocate_registers(Code& code, const std::vector<RegClass>& classes,
                        const std::vector<int>& fixed);

}  // namespace vgpu::ptx
