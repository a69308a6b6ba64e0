// libcudart.so.13 of the virtual GPU: the documented runtime API over the driver API. It takes the
// place of NVIDIA's, static or shared, whose start asks the driver for a keyed proof that it is
// NVIDIA's own (see dark_api.cpp). Programs are linked with `-cudart shared`. What is not here is
// in the generated cudart_stubs.c, which logs and fails.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

extern "C" int vgpu_missing(const char* name) {
  fprintf(stderr, "vgpu: %s is not implemented\n", name);
  return cudaErrorNotSupported;
}

namespace {

thread_local int the_device = 0;
thread_local cudaError_t last = cudaSuccess;

cudaError_t note(cudaError_t e) {
  if (e != cudaSuccess && e != cudaErrorNotReady) last = e;
  return e;
}
cudaError_t note(CUresult e) { return note(static_cast<cudaError_t>(e)); }

CUresult use(int device) {
  CUcontext c = nullptr;
  CUresult e = cuDevicePrimaryCtxRetain(&c, device);
  return e ? e : cuCtxSetCurrent(c);
}
CUresult ready() {
  static const CUresult started = cuInit(0);
  if (started) return started;
  CUcontext c = nullptr;
  cuCtxGetCurrent(&c);
  return c ? CUDA_SUCCESS : use(the_device);
}
#define READY                                 \
  do {                                        \
    if (CUresult e = ready()) return note(e); \
  } while (0)

struct Binary {
  void* wrapper;
  CUlibrary library = nullptr;
};
struct Function {
  Binary* binary;
  std::string name;
  CUkernel kernel = nullptr;
};
std::mutex the_mutex;
std::map<const void*, Function>& functions() {
  static auto* const map = new std::map<const void*, Function>;
  return *map;
}
std::map<const void*, std::pair<Binary*, std::string>>& variables() {
  static auto* const map = new std::map<const void*, std::pair<Binary*, std::string>>;
  return *map;
}
CUresult library_of(Binary* b) {
  return b->library
             ? CUDA_SUCCESS
             : cuLibraryLoadData(&b->library, b->wrapper, nullptr, nullptr, 0, nullptr, nullptr, 0);
}
CUresult kernel_of(const void* host, CUkernel* kernel) {
  std::lock_guard lock(the_mutex);
  const auto it = functions().find(host);
  if (it == functions().end()) {  // a cudaKernel_t
    *kernel = static_cast<CUkernel>(const_cast<void*>(host));
    return CUDA_SUCCESS;
  }
  Function& f = it->second;
  if (!f.kernel) {
    if (CUresult e = library_of(f.binary)) return e;
    if (CUresult e = cuLibraryGetKernel(&f.kernel, f.binary->library, f.name.c_str())) return e;
  }
  *kernel = f.kernel;
  return CUDA_SUCCESS;
}

struct Configuration {
  dim3 grid, block;
  size_t shared;
  void* stream;
};
thread_local std::vector<Configuration> configurations;

CUdeviceptr at(const void* p) { return reinterpret_cast<CUdeviceptr>(p); }

}  // namespace

extern "C" {

// --- what nvcc's host code calls
void** __cudaRegisterFatBinary(void* wrapper) {
  return reinterpret_cast<void**>(new Binary{wrapper});
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 0; }
void __cudaRegisterFunction(void** binary, const char* host, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  std::lock_guard lock(the_mutex);
  functions()[host] = {reinterpret_cast<Binary*>(binary), name};
}
void __cudaRegisterVar(void** binary, char* host, char*, const char* name, int, size_t, int, int) {
  variables()[host] = {reinterpret_cast<Binary*>(binary), name};
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
  configurations.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  const Configuration c = configurations.back();
  configurations.pop_back();
  *grid = c.grid, *block = c.block, *shared = c.shared, *static_cast<void**>(stream) = c.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  return note(kernel_of(host, reinterpret_cast<CUkernel*>(kernel)));
}
cudaError_t cudaLaunchKernel(const void* f, dim3 g, dim3 b, void** args, size_t shared,
                             cudaStream_t s) {
  READY;
  CUkernel k;
  if (CUresult e = kernel_of(f, &k)) return note(e);
  return note(cuLaunchKernel(reinterpret_cast<CUfunction>(k), g.x, g.y, g.z, b.x, b.y, b.z,
                             static_cast<unsigned>(shared), s, args, nullptr));
}
cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 g, dim3 b, void** args, size_t shared,
                               cudaStream_t s) {
  READY;
  return note(cuLaunchKernel(reinterpret_cast<CUfunction>(k), g.x, g.y, g.z, b.x, b.y, b.z,
                             static_cast<unsigned>(shared), s, args, nullptr));
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* f, void** args) {
  READY;
  CUkernel k;
  if (CUresult e = kernel_of(f, &k)) return note(e);
  std::vector<CUlaunchAttribute> attributes(c->numAttrs);
  for (unsigned i = 0; i < c->numAttrs; ++i)
    std::memcpy(&attributes[i], &c->attrs[i], sizeof attributes[i]);
  CUlaunchConfig to = {};
  to.gridDimX = c->gridDim.x, to.gridDimY = c->gridDim.y, to.gridDimZ = c->gridDim.z;
  to.blockDimX = c->blockDim.x, to.blockDimY = c->blockDim.y, to.blockDimZ = c->blockDim.z;
  to.sharedMemBytes = static_cast<unsigned>(c->dynamicSmemBytes), to.hStream = c->stream;
  to.attrs = attributes.data(), to.numAttrs = c->numAttrs;
  return note(cuLaunchKernelEx(&to, reinterpret_cast<CUfunction>(k), args, nullptr));
}
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void* d) {
  READY;
  return note(cuLaunchHostFunc(s, f, d));
}
cudaError_t cudaFuncSetAttribute(const void* f, cudaFuncAttribute a, int v) {
  READY;
  CUkernel k;
  if (CUresult e = kernel_of(f, &k)) return note(e);
  return note(cuKernelSetAttribute(static_cast<CUfunction_attribute>(a), v, k, the_device));
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void* f) {
  READY;
  CUkernel k;
  if (CUresult e = kernel_of(f, &k)) return note(e);
  std::memset(a, 0, sizeof *a);
  const auto get = [&](CUfunction_attribute which) {
    int v = 0;
    cuKernelGetAttribute(&v, which, k, the_device);
    return v;
  };
  a->sharedSizeBytes = get(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
  a->localSizeBytes = get(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES);
  a->maxThreadsPerBlock = get(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
  a->numRegs = get(CU_FUNC_ATTRIBUTE_NUM_REGS);
  a->ptxVersion = get(CU_FUNC_ATTRIBUTE_PTX_VERSION);
  a->binaryVersion = get(CU_FUNC_ATTRIBUTE_BINARY_VERSION);
  a->maxDynamicSharedSizeBytes = get(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void* f,
                                                                   int threads, size_t shared,
                                                                   unsigned flags) {
  READY;
  CUkernel k;
  if (CUresult e = kernel_of(f, &k)) return note(e);
  return note(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
      n, reinterpret_cast<CUfunction>(k), threads, shared, flags));
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n, const void* f, int t, size_t s) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(n, f, t, s, 0);
}

// --- errors and versions
cudaError_t cudaGetLastError() {
  const cudaError_t e = last;
  last = cudaSuccess;
  return e;
}
cudaError_t cudaPeekAtLastError() { return last; }
const char* cudaGetErrorName(cudaError_t e) {
  static std::map<int, std::string> names;
  std::lock_guard lock(the_mutex);
  std::string& s = names[e];
  if (s.empty()) {
    switch (e) {
#define E(x) \
  case x:    \
    s = #x;  \
    break;
      E(cudaSuccess)
      E(cudaErrorInvalidValue) E(cudaErrorMemoryAllocation) E(cudaErrorInvalidDevice)
          E(cudaErrorNoDevice) E(cudaErrorInvalidResourceHandle) E(cudaErrorIllegalAddress)
              E(cudaErrorMisalignedAddress) E(cudaErrorLaunchFailure) E(cudaErrorNotSupported)
                  E(cudaErrorInvalidPtx) E(cudaErrorNoKernelImageForDevice)
                      E(cudaErrorStreamCaptureUnsupported) E(cudaErrorStreamCaptureInvalidated)
                          E(cudaErrorStreamCaptureImplicit) E(cudaErrorPeerAccessAlreadyEnabled)
                              E(cudaErrorPeerAccessNotEnabled) E(cudaErrorNotReady)
                                  E(cudaErrorStreamCaptureIsolation) E(cudaErrorCapturedEvent)
#undef E
                                      default : s = "cudaError " + std::to_string(e);
    }
  }
  return s.c_str();
}
const char* cudaGetErrorString(cudaError_t e) { return cudaGetErrorName(e); }
cudaError_t cudaDriverGetVersion(int* v) { return note(cuDriverGetVersion(v)); }
cudaError_t cudaRuntimeGetVersion(int* v) {
  *v = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** f, unsigned version,
                                             unsigned long long flags,
                                             cudaDriverEntryPointQueryResult* status) {
  CUdriverProcAddressQueryResult found;
  cuGetProcAddress(name, f, static_cast<int>(version), flags, &found);
  if (status) *status = static_cast<cudaDriverEntryPointQueryResult>(found);
  return cudaSuccess;
}

// --- devices
cudaError_t cudaGetDeviceCount(int* n) {
  *n = 0;
  if (CUresult e = cuInit(0)) return note(e);
  return note(cuDeviceGetCount(n));
}
cudaError_t cudaGetDevice(int* d) {
  CUcontext c = nullptr;
  cuCtxGetCurrent(&c);
  if (c) return note(cuCtxGetDevice(d));
  *d = the_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int d) {
  if (CUresult e = use(d)) return note(e);
  the_device = d;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  READY;
  return note(cuCtxSynchronize());
}
cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int d) {
  return note(cuDeviceGetAttribute(v, static_cast<CUdevice_attribute>(a), d));
}
cudaError_t cudaDeviceGetPCIBusId(char* s, int n, int d) {
  return note(cuDeviceGetPCIBusId(s, n, d));
}
cudaError_t cudaDeviceGetByPCIBusId(int* d, const char* s) {
  return note(cuDeviceGetByPCIBusId(d, s));
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int d) {
  int n = 0;
  cuDeviceGetCount(&n);
  if (d < 0 || d >= n) return note(cudaErrorInvalidDevice);
  std::memset(p, 0, sizeof *p);
  const auto get = [&](int a) {
    int v = 0;
    cuDeviceGetAttribute(&v, static_cast<CUdevice_attribute>(a), d);
    return v;
  };
  cuDeviceGetName(p->name, sizeof p->name, d);
  cuDeviceTotalMem(&p->totalGlobalMem, d);
  p->sharedMemPerBlock = get(8), p->regsPerBlock = get(12), p->warpSize = get(10),
  p->maxThreadsPerBlock = get(1);
  for (int i = 0; i < 3; ++i) p->maxThreadsDim[i] = get(2 + i), p->maxGridSize[i] = get(5 + i);
  p->totalConstMem = get(9), p->major = get(75), p->minor = get(76),
  p->multiProcessorCount = get(16);
  p->unifiedAddressing = 1, p->l2CacheSize = get(38), p->maxThreadsPerMultiProcessor = get(39);
  p->sharedMemPerMultiprocessor = get(81), p->regsPerMultiprocessor = get(82),
  p->sharedMemPerBlockOptin = get(97);
  p->maxBlocksPerMultiProcessor = get(106), p->reservedSharedMemPerBlock = get(111),
  p->canMapHostMemory = 1;
  p->concurrentKernels = 1, p->asyncEngineCount = 3, p->pciBusID = get(33),
  p->textureAlignment = 512, p->cooperativeLaunch = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* v, int a, int b) {
  return note(cuDeviceCanAccessPeer(v, a, b));
}
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
  READY;
  CUcontext c;
  cuDevicePrimaryCtxRetain(&c, peer);
  return note(cuCtxEnablePeerAccess(c, flags));
}
cudaError_t cudaDeviceDisablePeerAccess(int peer) {
  READY;
  CUcontext c;
  cuDevicePrimaryCtxRetain(&c, peer);
  return note(cuCtxDisablePeerAccess(c));
}
cudaError_t cudaDeviceGetLimit(size_t* v, cudaLimit l) {
  READY;
  return note(cuCtxGetLimit(v, static_cast<CUlimit>(l)));
}
cudaError_t cudaDeviceSetLimit(cudaLimit l, size_t v) {
  READY;
  return note(cuCtxSetLimit(static_cast<CUlimit>(l), v));
}

// --- memory
cudaError_t cudaMalloc(void** p, size_t n) {
  READY;
  *p = nullptr;
  return n == 0 ? cudaSuccess : note(cuMemAlloc(reinterpret_cast<CUdeviceptr*>(p), n));
}
cudaError_t cudaFree(void* p) {
  READY;
  return note(cuMemFree(at(p)));
}
cudaError_t cudaMallocHost(void** p, size_t n) {
  READY;
  return note(cuMemHostAlloc(p, n, 0));
}
cudaError_t cudaHostAlloc(void** p, size_t n, unsigned f) {
  READY;
  return note(cuMemHostAlloc(p, n, f));
}
cudaError_t cudaFreeHost(void* p) {
  READY;
  return note(cuMemFreeHost(p));
}
cudaError_t cudaHostRegister(void* p, size_t n, unsigned f) {
  READY;
  return note(cuMemHostRegister(p, n, f));
}
cudaError_t cudaHostUnregister(void* p) {
  READY;
  return note(cuMemHostUnregister(p));
}
cudaError_t cudaMemGetInfo(size_t* f, size_t* t) {
  READY;
  return note(cuMemGetInfo(f, t));
}
cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind) {
  READY;
  return note(cuMemcpy(at(d), at(s), n));
}
cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind, cudaStream_t h) {
  READY;
  return note(cuMemcpyAsync(at(d), at(s), n, h));
}
cudaError_t cudaMemcpyPeer(void* d, int, const void* s, int, size_t n) {
  READY;
  return note(cuMemcpy(at(d), at(s), n));
}
cudaError_t cudaMemcpyPeerAsync(void* d, int, const void* s, int, size_t n, cudaStream_t h) {
  READY;
  return note(cuMemcpyAsync(at(d), at(s), n, h));
}
cudaError_t cudaMemcpy2DAsync(void* d, size_t dp, const void* s, size_t sp, size_t w, size_t h,
                              cudaMemcpyKind, cudaStream_t stream) {
  READY;
  CUDA_MEMCPY2D c = {};
  c.srcMemoryType = c.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
  c.srcDevice = at(s), c.srcPitch = sp, c.dstDevice = at(d), c.dstPitch = dp, c.WidthInBytes = w,
  c.Height = h;
  return note(cuMemcpy2DAsync(&c, stream));
}
cudaError_t cudaMemcpy2D(void* d, size_t dp, const void* s, size_t sp, size_t w, size_t h,
                         cudaMemcpyKind k) {
  return cudaMemcpy2DAsync(d, dp, s, sp, w, h, k, nullptr);
}
cudaError_t cudaMemset(void* p, int v, size_t n) {
  READY;
  return note(cuMemsetD8(at(p), static_cast<unsigned char>(v), n));
}
cudaError_t cudaMemsetAsync(void* p, int v, size_t n, cudaStream_t s) {
  READY;
  return note(cuMemsetD8Async(at(p), static_cast<unsigned char>(v), n, s));
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  READY;
  std::memset(a, 0, sizeof *a);
  unsigned type = 0;
  a->device = -2;
  a->type = cudaMemoryTypeUnregistered;
  if (cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at(p)) == CUDA_SUCCESS) {
    a->type = type == CU_MEMORYTYPE_HOST ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    a->devicePointer = const_cast<void*>(p);
    cuPointerGetAttribute(&a->device, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, at(p));
    if (a->type == cudaMemoryTypeHost) a->hostPointer = const_cast<void*>(p);
  } else {
    a->hostPointer = const_cast<void*>(p);
  }
  return cudaSuccess;
}

// --- streams, events, graphs
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned f, int p) {
  READY;
  return note(cuStreamCreateWithPriority(s, f, p));
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned f) {
  return cudaStreamCreateWithPriority(s, f, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithPriority(s, 0, 0); }
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  READY;
  return note(cuStreamDestroy(s));
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  READY;
  return note(cuStreamSynchronize(s));
}
cudaError_t cudaStreamQuery(cudaStream_t s) {
  READY;
  return note(cuStreamQuery(s));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned f) {
  READY;
  return note(cuStreamWaitEvent(s, e, f));
}
cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t f, void* d, unsigned) {
  READY;
  f(s, cudaSuccess, d);
  return cudaSuccess;
}
cudaError_t cudaStreamGetFlags(cudaStream_t s, unsigned* f) {
  READY;
  return note(cuStreamGetFlags(s, f));
}
cudaError_t cudaStreamGetPriority(cudaStream_t s, int* p) {
  READY;
  return note(cuStreamGetPriority(s, p));
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode m) {
  READY;
  return note(cuStreamBeginCapture(s, static_cast<CUstreamCaptureMode>(m)));
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* g) {
  READY;
  return note(cuStreamEndCapture(s, g));
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* v) {
  READY;
  return note(cuStreamIsCapturing(s, reinterpret_cast<CUstreamCaptureStatus*>(v)));
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* m) {
  return note(cuThreadExchangeStreamCaptureMode(reinterpret_cast<CUstreamCaptureMode*>(m)));
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* x, cudaGraph_t g, unsigned long long f) {
  READY;
  return note(cuGraphInstantiateWithFlags(x, g, f));
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* x, cudaGraph_t g, unsigned long long f) {
  return cudaGraphInstantiate(x, g, f);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
  READY;
  return note(cuGraphLaunch(x, s));
}
cudaError_t cudaGraphUpload(cudaGraphExec_t x, cudaStream_t s) {
  READY;
  return note(cuGraphUpload(x, s));
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) { return note(cuGraphDestroy(g)); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) { return note(cuGraphExecDestroy(x)); }
cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t* nodes, size_t* n) {
  return note(cuGraphGetNodes(g, nodes, n));
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned f) {
  READY;
  return note(cuEventCreate(e, f));
}
cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  READY;
  return note(cuEventDestroy(e));
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  READY;
  return note(cuEventRecord(e, s));
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  READY;
  return note(cuEventQuery(e));
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  READY;
  return note(cuEventSynchronize(e));
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
  READY;
  return note(cuEventElapsedTime(ms, a, b));
}

}  // extern "C"
