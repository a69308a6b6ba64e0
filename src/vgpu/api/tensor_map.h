// Tensor maps for bulk copies, in a layout of our own: kernels only hand them on.
#pragma once
#include <cuda.h>

namespace vgpu {

// Fails where the manual of cuTensorMapEncodeTiled forbids it, and for interleaved maps and those
// that fill with NaN, which are not implemented.
void encode_tiled(CUtensorMap* map, CUtensorMapDataType type, unsigned rank, void* address,
                  const cuuint64_t* size, const cuuint64_t* stride, const cuuint32_t* box,
                  const cuuint32_t* step, CUtensorMapSwizzle swizzle);

}  // namespace vgpu
