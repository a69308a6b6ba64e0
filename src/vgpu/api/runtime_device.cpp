// The runtime API: errors, versions and devices.
#include "vgpu/api/error_names.h"
#include "vgpu/api/runtime.h"

extern "C" CUresult cuProfilerStart();  // in cudaProfiler.h, which not every toolkit brings
extern "C" CUresult cuProfilerStop();

namespace vgpu::runtime {

namespace {

thread_local int device_of_thread = 0;
thread_local cudaError_t last_error = cudaSuccess;

}  // namespace

cudaError_t note(CUresult result) {
  const auto error = static_cast<cudaError_t>(result);
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
  return error;
}

int chosen_device() { return device_of_thread; }

CUresult use(int device) {
  CUcontext context = nullptr;
  const CUresult result = cuDevicePrimaryCtxRetain(&context, device);
  return result == CUDA_SUCCESS ? cuCtxSetCurrent(context) : result;
}

CUresult ready() {
  static const CUresult started = cuInit(0);
  if (started != CUDA_SUCCESS) return started;
  CUcontext context = nullptr;
  cuCtxGetCurrent(&context);
  return context ? CUDA_SUCCESS : use(device_of_thread);
}

namespace {

cudaError_t peer_access(int peer, CUresult (*change)(CUcontext)) {
  return run([&] {
    CUcontext context = nullptr;
    const CUresult result = cuDevicePrimaryCtxRetain(&context, peer);
    return result == CUDA_SUCCESS ? change(context) : result;
  });
}

void fill_properties(cudaDeviceProp* p, int device) {
  const auto get = [device](CUdevice_attribute attribute) {
    int value = 0;
    cuDeviceGetAttribute(&value, attribute, device);
    return value;
  };
  *p = {};
  cuDeviceGetName(p->name, sizeof p->name, device);
  cuDeviceTotalMem(&p->totalGlobalMem, device);
  p->major = get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  p->minor = get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  p->multiProcessorCount = get(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  p->warpSize = get(CU_DEVICE_ATTRIBUTE_WARP_SIZE);
  p->regsPerBlock = get(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK);
  p->regsPerMultiprocessor = get(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR);
  p->maxThreadsPerBlock = get(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
  p->maxThreadsPerMultiProcessor = get(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR);
  p->maxBlocksPerMultiProcessor = get(CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR);
  for (int i = 0; i < 3; ++i) {
    p->maxThreadsDim[i] =
        get(static_cast<CUdevice_attribute>(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X + i));
    p->maxGridSize[i] =
        get(static_cast<CUdevice_attribute>(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X + i));
  }
  const auto bytes = [&get](CUdevice_attribute a) { return static_cast<size_t>(get(a)); };
  p->totalConstMem = bytes(CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY);
  p->sharedMemPerBlock = bytes(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK);
  p->sharedMemPerBlockOptin = bytes(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  p->sharedMemPerMultiprocessor = bytes(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
  p->reservedSharedMemPerBlock = bytes(CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK);
  p->textureAlignment = bytes(CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT);
  p->l2CacheSize = get(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
  p->memoryBusWidth = get(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
  p->pciBusID = get(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID);
  p->asyncEngineCount = get(CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT);
  p->unifiedAddressing = get(CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING);
  p->canMapHostMemory = get(CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY);
  p->concurrentKernels = get(CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS);
  p->cooperativeLaunch = get(CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH);
  p->clusterLaunch = get(CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH);
}

}  // namespace

}  // namespace vgpu::runtime

using namespace vgpu::runtime;

extern "C" {

// --- errors and versions
cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return last_error; }
const char* cudaGetErrorName(cudaError_t error) {
  const vgpu::ErrorName* const found = vgpu::error_name(error);
  return found ? found->runtime : "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) {
  const vgpu::ErrorName* const found = vgpu::error_name(error);
  return found ? found->text : "unrecognized error code";
}
cudaError_t cudaDriverGetVersion(int* version) { return note(cuDriverGetVersion(version)); }
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaProfilerStart() { return note(cuProfilerStart()); }
cudaError_t cudaProfilerStop() { return note(cuProfilerStop()); }
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned version,
                                             unsigned long long flags,
                                             cudaDriverEntryPointQueryResult* found) {
  CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  cuGetProcAddress(name, function, static_cast<int>(version), flags, &status);
  if (found) *found = static_cast<cudaDriverEntryPointQueryResult>(status);
  return cudaSuccess;
}

// --- devices
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  const CUresult started = cuInit(0);
  return note(started == CUDA_SUCCESS ? cuDeviceGetCount(count) : started);
}
cudaError_t cudaGetDevice(int* device) {
  CUcontext context = nullptr;
  cuCtxGetCurrent(&context);
  if (context) return note(cuCtxGetDevice(device));
  *device = chosen_device();
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  const CUresult result = use(device);
  if (result == CUDA_SUCCESS) device_of_thread = device;
  return note(result);
}
cudaError_t cudaDeviceSynchronize() {
  return run([] { return cuCtxSynchronize(); });
}
cudaError_t cudaDeviceReset() {
  return run([] { return cuDevicePrimaryCtxReset(chosen_device()); });
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return note(cuDeviceGetAttribute(value, static_cast<CUdevice_attribute>(attribute), device));
}
cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int device) {
  return note(cuDeviceGetPCIBusId(text, size, device));
}
cudaError_t cudaDeviceGetByPCIBusId(int* device, const char* text) {
  return note(cuDeviceGetByPCIBusId(device, text));
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  CUdevice checked = 0;
  const CUresult result = cuDeviceGet(&checked, device);
  if (result == CUDA_SUCCESS) fill_properties(properties, device);
  return note(result);
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  return note(cuDeviceCanAccessPeer(can, device, peer));
}
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
  return peer_access(peer, [](CUcontext context) { return cuCtxEnablePeerAccess(context, 0); });
}
cudaError_t cudaDeviceDisablePeerAccess(int peer) {
  return peer_access(peer, [](CUcontext context) { return cuCtxDisablePeerAccess(context); });
}
cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit limit) {
  return run([&] { return cuCtxGetLimit(value, static_cast<CUlimit>(limit)); });
}
cudaError_t cudaDeviceSetLimit(cudaLimit limit, size_t value) {
  return run([&] { return cuCtxSetLimit(static_cast<CUlimit>(limit), value); });
}

}  // extern "C"
