// The runtime API: memory, copies and fills.
#include <cstring>

#include "vgpu/api/runtime.h"

using namespace vgpu::runtime;

namespace {

CUDA_MEMCPY2D rows(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                   size_t height) {
  CUDA_MEMCPY2D c = {};
  c.srcMemoryType = c.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
  c.srcDevice = at(from), c.srcPitch = from_pitch;
  c.dstDevice = at(to), c.dstPitch = to_pitch;
  c.WidthInBytes = width, c.Height = height;
  return c;
}

}  // namespace

extern "C" {

// --- allocations
cudaError_t cudaMalloc(void** address, size_t bytes) {
  return run([&] {
    *address = nullptr;
    return bytes == 0 ? CUDA_SUCCESS : cuMemAlloc(reinterpret_cast<CUdeviceptr*>(address), bytes);
  });
}
cudaError_t cudaFree(void* address) {
  return run([&] { return cuMemFree(at(address)); });
}
cudaError_t cudaMallocHost(void** address, size_t bytes) {
  return run([&] { return cuMemHostAlloc(address, bytes, 0); });
}
cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned flags) {
  return run([&] { return cuMemHostAlloc(address, bytes, flags); });
}
cudaError_t cudaFreeHost(void* address) {
  return run([&] { return cuMemFreeHost(address); });
}
cudaError_t cudaHostRegister(void* address, size_t bytes, unsigned flags) {
  return run([&] { return cuMemHostRegister(address, bytes, flags); });
}
cudaError_t cudaHostUnregister(void* address) {
  return run([&] { return cuMemHostUnregister(address); });
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return run([&] { return cuMemGetInfo(free, total); });
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* pointer) {
  return run([&] {
    *a = {};
    a->type = cudaMemoryTypeUnregistered;
    a->device = cudaInvalidDeviceId;
    a->hostPointer = const_cast<void*>(pointer);
    unsigned type = 0;
    if (cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at(pointer)))
      return CUDA_SUCCESS;
    a->type = type == CU_MEMORYTYPE_HOST ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    a->devicePointer = const_cast<void*>(pointer);
    if (a->type == cudaMemoryTypeDevice) a->hostPointer = nullptr;
    return cuPointerGetAttribute(&a->device, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, at(pointer));
  });
}

// --- copies
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  return run([&] { return cuMemcpy(at(to), at(from), bytes); });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  return run([&] { return cuMemcpyAsync(at(to), at(from), bytes, stream); });
}
cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t bytes) {
  return run([&] { return cuMemcpyPeer(at(to), nullptr, at(from), nullptr, bytes); });
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes,
                                cudaStream_t stream) {
  return run([&] { return cuMemcpyAsync(at(to), at(from), bytes, stream); });
}
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                         size_t width, size_t height, cudaMemcpyKind) {
  const CUDA_MEMCPY2D c = rows(to, to_pitch, from, from_pitch, width, height);
  return run([&] { return cuMemcpy2D(&c); });
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind, cudaStream_t stream) {
  const CUDA_MEMCPY2D c = rows(to, to_pitch, from, from_pitch, width, height);
  return run([&] { return cuMemcpy2DAsync(&c, stream); });
}

// --- fills
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return run([&] { return cuMemsetD8(at(to), static_cast<unsigned char>(value), bytes); });
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return run(
      [&] { return cuMemsetD8Async(at(to), static_cast<unsigned char>(value), bytes, stream); });
}

}  // extern "C"
