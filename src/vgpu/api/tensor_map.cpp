#include "vgpu/api/tensor_map.h"

#include <cstdint>
#include <cstring>

#include "vgpu/api/failure.h"
#include "vgpu/vgpu.h"

namespace vgpu {

namespace {

unsigned bytes_of(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
      return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
      return 8;
    default:
      return 4;
  }
}

// The widest box of a swizzle, in bytes; 0 without one.
unsigned span_of(CUtensorMapSwizzle swizzle) {
  switch (swizzle) {
    case CU_TENSOR_MAP_SWIZZLE_NONE:
      return 0;
    case CU_TENSOR_MAP_SWIZZLE_32B:
      return 32;
    case CU_TENSOR_MAP_SWIZZLE_64B:
      return 64;
    case CU_TENSOR_MAP_SWIZZLE_128B:
      return 128;
    default:
      fail(CUDA_ERROR_NOT_SUPPORTED, "tensor map: a swizzle that is not implemented");
  }
}

void expect(bool holds, const char* what) {
  if (!holds) fail(CUDA_ERROR_INVALID_VALUE, std::string("tensor map: expected ") + what);
}

}  // namespace

void encode_tiled(CUtensorMap* map, CUtensorMapDataType type, unsigned rank, void* address,
                  const cuuint64_t* size, const cuuint64_t* stride, const cuuint32_t* box,
                  const cuuint32_t* step, CUtensorMapSwizzle swizzle) {
  const unsigned element = bytes_of(type), span = span_of(swizzle);
  expect(rank >= 1 && rank <= 5, "a rank of 1 to 5");
  expect(reinterpret_cast<std::uintptr_t>(address) % 16 == 0, "an address that 16 divides");
  expect(reinterpret_cast<std::uintptr_t>(map) % 64 == 0, "a map that is aligned to 64 bytes");
  expect(box[0] * element % 16 == 0, "a box whose rows are a multiple of 16 bytes");
  expect(span == 0 || box[0] * element <= span, "a box whose rows are no wider than the swizzle");
  TensorMap made = {};
  made.magic = TensorMap::kMagic;
  made.rank = rank;
  made.address = reinterpret_cast<std::uint64_t>(address);
  made.element = static_cast<std::uint8_t>(element);
  made.swizzle = span == 32 ? 1 : span == 64 ? 2 : span == 128 ? 3 : 0;
  for (unsigned r = 0; r < rank; ++r) {
    expect(size[r] > 0 && size[r] <= 1ull << 32, "sizes of 1 to 2^32");
    expect(box[r] > 0 && box[r] <= 256, "boxes of 1 to 256 elements");
    expect(step[r] > 0 && step[r] <= 8, "steps of 1 to 8");
    made.size[r] = static_cast<std::uint32_t>(size[r]);
    made.box[r] = box[r];
    made.step[r] = static_cast<std::uint8_t>(step[r]);
    if (r + 1 == rank) break;
    expect(stride[r] % 16 == 0 && stride[r] < 1ull << 40, "strides below 2^40 that 16 divides");
    made.stride[r] = stride[r];
  }
  std::memcpy(map, &made, sizeof made);
}

}  // namespace vgpu
