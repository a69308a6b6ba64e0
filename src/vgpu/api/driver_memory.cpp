// The driver API: memory, copies and fills.
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

#include "vgpu/api/call.h"
#include "vgpu/api/device.h"
#include "vgpu/api/pointer.h"
#include "vgpu/api/transfer.h"
#include "vgpu/memory.h"

using namespace vgpu;

namespace {

CUdeviceptr at(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

}  // namespace

extern "C" {

// --- allocations
CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  return call(__func__, [&] {
    *total = kDeviceBytes;
    *free = kDeviceBytes - memory_used();
  });
}
CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  return call(__func__, [&] { *address = allocate(bytes); });
}
CUresult cuMemFree_v2(CUdeviceptr address) {
  return call(__func__, [&] { deallocate(address); });
}
CUresult cuMemAllocHost_v2(void** address, size_t bytes) {
  return call(__func__, [&] { *address = allocate_pinned(bytes); });
}
CUresult cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  return cuMemAllocHost_v2(address, bytes);
}
CUresult cuMemFreeHost(void* address) {
  return call(__func__, [&] { deallocate_pinned(address); });
}
CUresult cuMemHostRegister_v2(void* address, size_t bytes, unsigned) {
  return call(__func__, [&] { memory_add_host(address, bytes); });
}
CUresult cuMemHostUnregister(void* address) {
  return call(__func__, [&] { require(memory_free(at(address)), CUDA_ERROR_INVALID_VALUE); });
}
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* device, void* address, unsigned) {
  return call(__func__, [&] { *device = at(address); });
}
CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr address) {
  return call(__func__, [&] {
    const Allocation* const a = memory_find(address);
    require(a != nullptr, CUDA_ERROR_INVALID_VALUE);
    if (base) *base = a->base;
    if (bytes) *bytes = a->size;
  });
}
CUresult cuPointerGetAttribute(void* value, CUpointer_attribute attribute, CUdeviceptr address) {
  return call(__func__, [&] { pointer_attribute(value, attribute, address); });
}
CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute* attributes, void** values,
                                CUdeviceptr address) {
  return call(__func__, [&] { pointer_attributes(count, attributes, values, address); });
}

// --- copies that the host waits for
CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return call(__func__, [&] { copy_and_wait({to, from, bytes}); });
}
CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  return call(__func__, [&] { copy_and_wait({to, at(from), bytes}); });
}
CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  return call(__func__, [&] { copy_and_wait({at(to), from, bytes}); });
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return call(__func__, [&] { copy_async({to, from, bytes}, nullptr); });
}
CUresult cuMemcpyPeer(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes) {
  return call(__func__, [&] { copy_async({to, from, bytes}, nullptr); });
}
CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D* c) {
  return call(__func__, [&] { copy_and_wait(copy_of(*c)); });
}
CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* c) {
  return call(__func__, [&] { copy_and_wait(copy_of(*c)); });
}

// --- copies in a stream
CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return call(__func__, [&] { copy_async({to, from, bytes}, stream); });
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return call(__func__, [&] { copy_async({to, at(from), bytes}, stream); });
}
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return call(__func__, [&] { copy_async({at(to), from, bytes}, stream); });
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return call(__func__, [&] { copy_async({to, from, bytes}, stream); });
}
CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes,
                           CUstream stream) {
  return call(__func__, [&] { copy_async({to, from, bytes}, stream); });
}
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* c, CUstream stream) {
  return call(__func__, [&] { copy_async(copy_of(*c), stream); });
}

// --- fills, all of which the host does not wait for
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
  return call(__func__, [&] { fill_async({to, value, 1, count}, stream); });
}
CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream) {
  return call(__func__, [&] { fill_async({to, value, 2, count}, stream); });
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
  return call(__func__, [&] { fill_async({to, value, 4, count}, stream); });
}
CUresult cuMemsetD2D8Async(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                           size_t height, CUstream stream) {
  return call(__func__, [&] { fill_async({to, value, 1, width, height, pitch}, stream); });
}
CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
  return cuMemsetD8Async(to, value, count, nullptr);
}
CUresult cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t count) {
  return cuMemsetD16Async(to, value, count, nullptr);
}
CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count) {
  return cuMemsetD32Async(to, value, count, nullptr);
}
CUresult cuMemsetD2D8_v2(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                         size_t height) {
  return cuMemsetD2D8Async(to, pitch, value, width, height, nullptr);
}

}  // extern "C"
