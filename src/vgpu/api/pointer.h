// What is known of an address.
#pragma once
#include <cuda.h>

namespace vgpu {

// Writes the attribute's value; fails for addresses that nobody allocated or registered.
void pointer_attribute(void* value, CUpointer_attribute attribute, CUdeviceptr address);
// The same for several: where an address has no such attribute, the value says so.
void pointer_attributes(unsigned count, const CUpointer_attribute* attributes, void** values,
                        CUdeviceptr address);

}  // namespace vgpu
