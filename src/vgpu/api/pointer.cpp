#include "vgpu/api/pointer.h"

#include <cstddef>
#include <cstring>

#include "vgpu/api/context.h"
#include "vgpu/memory.h"

namespace vgpu {

namespace {

template <typename T>
void write(void* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

std::size_t size_of(CUpointer_attribute attribute) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      return 4;
    default:
      return 8;
  }
}

}  // namespace

void pointer_attribute(void* value, CUpointer_attribute attribute, CUdeviceptr address) {
  if (attribute == CU_POINTER_ATTRIBUTE_IS_MANAGED) return write(value, 0u);
  const Allocation* const a = memory_find(address);
  require(a != nullptr, CUDA_ERROR_INVALID_VALUE);
  const bool is_host = a->host && !a->registered;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      return write(value, primary_context(a->device));
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      return write<unsigned>(value, is_host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE);
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      return write(value, address);
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      require(is_host, CUDA_ERROR_INVALID_VALUE);
      return write(value, address);
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      return write(value, a->device);
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      return write(value, a->base);
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      return write(value, a->size);
    case CU_POINTER_ATTRIBUTE_MAPPED:
      return write(value, true);
    default:
      fail(CUDA_ERROR_NOT_SUPPORTED);
  }
}

void pointer_attributes(unsigned count, const CUpointer_attribute* attributes, void** values,
                        CUdeviceptr address) {
  constexpr int kNoDevice = -2;
  for (unsigned i = 0; i < count; ++i) {
    try {
      pointer_attribute(values[i], attributes[i], address);
    } catch (const Failure&) {
      std::memset(values[i], 0, size_of(attributes[i]));
      if (attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL) write(values[i], kNoDevice);
    }
  }
}

}  // namespace vgpu
