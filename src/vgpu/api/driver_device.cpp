// The driver API: start, errors, devices and contexts.
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

#include <cstdio>
#include <cstring>

#include "vgpu/api/call.h"
#include "vgpu/api/capture.h"
#include "vgpu/api/context.h"
#include "vgpu/api/device.h"
#include "vgpu/api/error_names.h"
#include "vgpu/api/stream.h"
#include "vgpu/settings.h"

using namespace vgpu;

extern "C" {

// --- start and errors
CUresult cuInit(unsigned) {
  return call(__func__, [] { require(device_count() > 0, CUDA_ERROR_NO_DEVICE); });
}
CUresult cuDriverGetVersion(int* version) {
  return call(__func__, [&] { *version = CUDA_VERSION; });
}
CUresult cuGetErrorName(CUresult code, const char** name) {
  const ErrorName* const found = error_name(code);
  *name = found ? found->driver : nullptr;
  return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuGetErrorString(CUresult code, const char** text) {
  const ErrorName* const found = error_name(code);
  *text = found ? found->text : nullptr;
  return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
// In cudaProfiler.h, which on PyPI is a package of its own.
CUresult cuProfilerStart() {
  return call(__func__, [] {});
}
CUresult cuProfilerStop() {
  return call(__func__, [] {});
}
CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode* mode) {
  return call(__func__, [&] { *mode = CU_MODULE_EAGER_LOADING; });
}

// --- devices
CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return call(__func__, [&] {
    require_device(ordinal);
    *device = ordinal;
  });
}
CUresult cuDeviceGetCount(int* count) {
  return call(__func__, [&] { *count = device_count(); });
}
CUresult cuDeviceGetName(char* text, int size, CUdevice device) {
  return call(__func__, [&] {
    require_device(device);
    std::snprintf(text, static_cast<std::size_t>(size), "%s", device_name().c_str());
  });
}
CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
  return call(__func__, [&] {
    require_device(device);
    std::memset(uuid, 0, sizeof *uuid);
    uuid->bytes[0] = 'v';
    uuid->bytes[15] = static_cast<char>(device);
  });
}
CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) { return cuDeviceGetUuid_v2(uuid, device); }
CUresult cuDeviceGetLuid(char*, unsigned*, CUdevice) {
  return call(__func__, [] { fail(CUDA_ERROR_NOT_SUPPORTED); });
}
CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  return call(__func__, [&] {
    require_device(device);
    *bytes = kDeviceBytes;
  });
}
CUresult cuDeviceGetPCIBusId(char* text, int size, CUdevice device) {
  return call(__func__, [&] {
    require_device(device);
    std::snprintf(text, static_cast<std::size_t>(size), "%s", pci_bus_id(device).c_str());
  });
}
CUresult cuDeviceGetByPCIBusId(CUdevice* device, const char* text) {
  return call(__func__, [&] { *device = device_of_pci_bus_id(text); });
}
CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
  return call(__func__, [&] {
    require_device(device);
    *major = limits().capability / 10;
    *minor = limits().capability % 10;
  });
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  if (log_level() > 1) std::fprintf(stderr, "vgpu: attribute %d of a device\n", attribute);
  return call(__func__, [&] {
    require_device(device);
    *value = device_attribute(attribute, device);
  });
}
CUresult cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  return call(__func__, [&] {
    require_device(device);
    require_device(peer);
    *can = device != peer;
  });
}
CUresult cuDeviceGetP2PAttribute(int* value, CUdevice_P2PAttribute, CUdevice, CUdevice) {
  return call(__func__, [&] { *value = 1; });
}

// --- contexts
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return call(__func__, [&] {
    require_device(device);
    *context = primary_context(device);
    (*context)->active = true;
  });
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return call(__func__, [&] { require_device(device); });
}
CUresult cuDevicePrimaryCtxRelease(CUdevice device) { return cuDevicePrimaryCtxRelease_v2(device); }
CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
  return call(__func__, [&] {
    require_device(device);
    scheduler().finish_all(primary_context(device));
    primary_context(device)->error = CUDA_SUCCESS;
  });
}
CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) {
  return call(__func__, [&] {
    require_device(device);
    primary_context(device)->flags = flags;
  });
}
CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  return call(__func__, [&] {
    require_device(device);
    *flags = primary_context(device)->flags;
    *active = primary_context(device)->active;
  });
}
CUresult cuCtxGetCurrent(CUcontext* context) {
  return call(__func__, [&] { *context = current_context(); });
}
CUresult cuCtxSetCurrent(CUcontext context) {
  return call(__func__, [&] { set_current_context(context); });
}
CUresult cuCtxPushCurrent_v2(CUcontext context) {
  return call(__func__, [&] { push_context(context); });
}
CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  return call(__func__, [&] {
    Context* const top = pop_context();
    if (context) *context = top;
  });
}
CUresult cuCtxGetDevice(CUdevice* device) {
  return call(__func__, [&] {
    require(current_context() != nullptr, CUDA_ERROR_INVALID_CONTEXT);
    *device = current_context()->device;
  });
}
CUresult cuCtxGetDevice_v2(CUdevice* device, CUcontext context) {
  return call(__func__, [&] { *device = context->device; });
}
CUresult cuCtxGetFlags(unsigned* flags) {
  return call(__func__, [&] { *flags = current_context() ? current_context()->flags : 0; });
}
CUresult cuCtxGetApiVersion(CUcontext, unsigned* version) {
  return call(__func__, [&] { *version = 3020; });
}
CUresult cuCtxSynchronize() {
  return call(__func__, [] { synchronize(require_context()); });
}
CUresult cuCtxSynchronize_v2(CUcontext context) {
  return call(__func__, [&] { synchronize(*context); });
}
CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return call(__func__, [&] {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
  });
}
CUresult cuCtxGetLimit(size_t* value, CUlimit) {
  return call(__func__, [&] { *value = 1024; });
}
CUresult cuCtxSetLimit(CUlimit, size_t) {
  return call(__func__, [] {});
}
CUresult cuCtxSetCacheConfig(CUfunc_cache) {
  return call(__func__, [] {});
}
CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned) {
  return call(__func__, [&] {
    const bool added = require_context().peers.insert(peer->device).second;
    require(added, CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
  });
}
CUresult cuCtxDisablePeerAccess(CUcontext peer) {
  return call(__func__, [&] {
    const bool erased = require_context().peers.erase(peer->device) > 0;
    require(erased, CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
  });
}

}  // extern "C"
