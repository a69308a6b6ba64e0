// The CUDA driver API on the CPU. Work runs when it is enqueued, in the calling thread (a legal
// order for every program that does not wait on the device for a later call). Stream capture
// records closures. What is not here is in the generated stubs.c, which logs and fails.
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <set>

#include "vgpu.h"

namespace vgpu {
int log_level() {
  static const int level = env("VGPU_LOG", 0);
  return level;
}
void log_call(const char* name) {
  if (log_level() > 0) fprintf(stderr, "vgpu: %s\n", name);
}
}  // namespace vgpu
#define API vgpu::log_call(__func__)

extern "C" int vgpu_missing(const char* name) {
  fprintf(stderr, "vgpu: %s is not implemented\n", name);
  return CUDA_ERROR_NOT_SUPPORTED;
}

using namespace vgpu;
using Work = std::function<CUresult()>;

struct CUctx_st {
  int device = 0;
  bool active = false;
  int error = 0;  // sticky
  unsigned flags = 0;
  std::set<int> peers;
  std::vector<CUstream> streams;
};
struct Node {
  CUgraphNodeType type;
  Work run;
  std::vector<CUgraphNode> after;
  std::string label;
};
struct CUgraphNode_st : Node {};
struct CUgraph_st {
  std::vector<CUgraphNode> nodes;
};
struct CUgraphExec_st {
  std::vector<Node> nodes;
};
struct CUstream_st {
  CUcontext context = nullptr;
  unsigned flags = 0;
  int priority = 0;
  CUgraph capturing = nullptr;  // the graph that takes this stream's work
  bool origin = false, invalid = false;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  unsigned long long capture_id = 0;
  std::vector<CUgraphNode> front;
};
struct CUevent_st {
  int device = 0;
  unsigned flags = 0;
  bool recorded = false;
  std::chrono::steady_clock::time_point when;
  CUgraph capturing = nullptr;  // recorded in a stream that was being captured
  CUstream captured_in = nullptr;
  std::vector<CUgraphNode> front;
};
struct CUfunc_st {
  std::shared_ptr<PtxModule> module;
  Kernel* kernel = nullptr;
  int max_dynamic = 48 * 1024, carveout = -1;
  bool opted_in = false;
};
struct CUmod_st {
  std::shared_ptr<PtxModule> module;
  std::map<std::string, CUfunction> functions;
};
struct CUkern_st {
  CUlibrary library;
  std::string name;
  std::map<int, int> attributes;
};
struct CUlib_st {
  std::string text;
  std::map<int, CUmodule> modules;  // by device
  std::map<std::string, CUkernel> kernels;
};

namespace {

int device_count() {
  static const int n = env("VGPU_DEVICES", 1);
  return n;
}
int capability() {
  static const int cc = env("VGPU_CC", 90);
  return cc;
}
CUctx_st* primary(int device) {
  static CUctx_st contexts[16];
  contexts[device].device = device;
  return &contexts[device];
}
thread_local std::vector<CUcontext> stack;
thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
std::mutex the_mutex;
int captures = 0;

CUcontext current() { return stack.empty() ? nullptr : stack.back(); }

CUstream stream_of(CUstream s) {
  static CUstream_st legacy[16], thread[16];
  if (s == nullptr || s == CU_STREAM_LEGACY || s == CU_STREAM_PER_THREAD) {
    const int device = current() ? current()->device : 0;
    CUstream_st* made = s == CU_STREAM_PER_THREAD ? &thread[device] : &legacy[device];
    made->context = primary(device);
    return made;
  }
  return s;
}
bool is_legacy(CUstream s) { return s == nullptr || s == CU_STREAM_LEGACY; }

#define NEED_CONTEXT                                                      \
  do {                                                                    \
    if (!current()) return CUDA_ERROR_INVALID_CONTEXT;                    \
    if (current()->error) return static_cast<CUresult>(current()->error); \
  } while (0)

// Calls that may not be made while a stream of this thread captures in the global mode.
CUresult unsafe_in_capture(const char* name) {
  if (captures > 0 && thread_mode != CU_STREAM_CAPTURE_MODE_RELAXED) {
    if (log_level()) fprintf(stderr, "vgpu: %s while a stream is being captured\n", name);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return CUDA_SUCCESS;
}

CUresult enqueue(CUstream handle, CUgraphNodeType type, const char* label, Work work) {
  NEED_CONTEXT;
  CUstream s = stream_of(handle);
  if (s->capturing) {
    if (s->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    auto* node = new CUgraphNode_st;
    node->type = type;
    node->run = std::move(work);
    node->after = s->front;
    node->label = label;
    s->capturing->nodes.push_back(node);
    s->front = {node};
    return CUDA_SUCCESS;
  }
  if (is_legacy(handle) && captures > 0) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  const CUresult result = work();
  if (result == CUDA_ERROR_ILLEGAL_ADDRESS || result == CUDA_ERROR_MISALIGNED_ADDRESS ||
      result == CUDA_ERROR_LAUNCH_FAILED)
    if (env("VGPU_STICKY", 1)) current()->error = result;
  return result;
}

CUresult copy_now(std::uint64_t to, std::uint64_t from, std::size_t size) {
  char* const d = memory_range(to, size);
  const char* const s = memory_range(from, size);
  if (!d || !s) {
    fprintf(stderr, "vgpu: a copy of %zu bytes from %#llx to %#llx leaves its allocation\n", size,
            (unsigned long long)from, (unsigned long long)to);
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::memmove(d, s, size);
  return CUDA_SUCCESS;
}
CUresult copy(CUdeviceptr to, CUdeviceptr from, std::size_t size, CUstream stream, bool sync) {
  if (sync)
    if (CUresult e = unsafe_in_capture("a synchronous copy")) return e;
  return enqueue(stream, CU_GRAPH_NODE_TYPE_MEMCPY, "memcpy",
                 [=] { return copy_now(to, from, size); });
}
template <typename T>
CUresult fill(CUdeviceptr to, T value, std::size_t count, CUstream stream) {
  return enqueue(stream, CU_GRAPH_NODE_TYPE_MEMSET, "memset", [=] {
    T* const d = reinterpret_cast<T*>(memory_range(to, count * sizeof(T)));
    if (!d) return CUDA_ERROR_INVALID_VALUE;
    for (std::size_t i = 0; i < count; ++i) d[i] = value;
    return CUDA_SUCCESS;
  });
}
template <typename T>
CUresult fill2d(CUdeviceptr to, std::size_t pitch, T value, std::size_t width, std::size_t height,
                CUstream stream) {
  return enqueue(stream, CU_GRAPH_NODE_TYPE_MEMSET, "memset", [=] {
    for (std::size_t y = 0; y < height; ++y) {
      T* const d = reinterpret_cast<T*>(memory_range(to + y * pitch, width * sizeof(T)));
      if (!d) return CUDA_ERROR_INVALID_VALUE;
      for (std::size_t i = 0; i < width; ++i) d[i] = value;
    }
    return CUDA_SUCCESS;
  });
}
CUresult copy2d(const CUDA_MEMCPY2D& c, CUstream stream) {
  return enqueue(stream, CU_GRAPH_NODE_TYPE_MEMCPY, "memcpy2d", [c] {
    const auto side = [](CUmemorytype type, const void* host, CUdeviceptr device) {
      return type == CU_MEMORYTYPE_HOST ? reinterpret_cast<CUdeviceptr>(host) : device;
    };
    const CUdeviceptr from = side(c.srcMemoryType, c.srcHost, c.srcDevice),
                      to = side(c.dstMemoryType, c.dstHost, c.dstDevice);
    for (std::size_t y = 0; y < c.Height; ++y)
      if (CUresult e = copy_now(to + (y + c.dstY) * c.dstPitch + c.dstXInBytes,
                                from + (y + c.srcY) * c.srcPitch + c.srcXInBytes, c.WidthInBytes))
        return e;
    return CUDA_SUCCESS;
  });
}

int max_optin() {
  switch (capability()) {
    case 75:
      return 64 << 10;
    case 80:
      return 163 << 10;
    case 86:
    case 89:
    case 120:
      return 99 << 10;
    default:
      return 227 << 10;
  }
}

CUresult load(const void* image, CUmodule* module) {
  std::string error, text = image_ptx(image, &error);
  std::shared_ptr<PtxModule> made;
  if (error.empty()) made = ptx_module(std::move(text), current() ? current()->device : 0, &error);
  if (!error.empty()) {
    fprintf(stderr, "vgpu: module: %s\n", error.c_str());
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  *module = new CUmod_st{made, {}};
  return CUDA_SUCCESS;
}
CUfunction function_of(CUmodule module, const std::string& name) {
  CUfunction& f = module->functions[name];
  if (!f) {
    const auto it = module->module->kernels.find(name);
    if (it == module->module->kernels.end()) return nullptr;
    f = new CUfunc_st{module->module, &it->second};
  }
  return f;
}
CUmodule module_of(CUlibrary library, int device) {
  CUmodule& m = library->modules[device];
  if (!m) {
    std::string error;
    auto made = ptx_module(library->text, device, &error);
    if (!error.empty()) return nullptr;
    m = new CUmod_st{made, {}};
  }
  return m;
}
// CuPy and cudart pass a CUkernel where a CUfunction is asked for: told apart by this set.
std::set<void*>& kernel_handles() {
  static auto* const set = new std::set<void*>;
  return *set;
}
CUfunction resolve(CUfunction f) {
  if (!kernel_handles().count(f)) return f;
  auto* const kernel = reinterpret_cast<CUkernel>(f);
  CUmodule m = module_of(kernel->library, current() ? current()->device : 0);
  CUfunction real = m ? function_of(m, kernel->name) : nullptr;
  if (real)
    for (const auto& [attribute, value] : kernel->attributes)
      cuFuncSetAttribute(real, static_cast<CUfunction_attribute>(attribute), value);
  return real;
}

CUresult launch(CUfunction handle, const unsigned* grid, const unsigned* block,
                const unsigned* cluster, unsigned shared, CUstream stream, void** params,
                void** extra) {
  NEED_CONTEXT;
  CUfunction f = resolve(handle);
  if (!f) return CUDA_ERROR_INVALID_HANDLE;
  if (stream_of(stream)->context != current()) {
    fprintf(stderr, "vgpu: launch of %s into a stream of device %d, current is %d\n",
            f->kernel->name.c_str(), stream_of(stream)->context->device, current()->device);
    return CUDA_ERROR_INVALID_HANDLE;
  }
  std::string error;
  if (!ptx_decode(*f->module, *f->kernel, &error)) {
    fprintf(stderr, "vgpu: %s: %s\n", f->kernel->name.c_str(), error.c_str());
    return CUDA_ERROR_INVALID_PTX;
  }
  const auto refuse = [&](const char* why, long have, long limit) {
    fprintf(stderr, "vgpu: launch of %s refused: %s: %ld, limit %ld\n", f->kernel->name.c_str(),
            why, have, limit);
    return CUDA_ERROR_INVALID_VALUE;
  };
  const unsigned long threads = static_cast<unsigned long>(block[0]) * block[1] * block[2];
  const unsigned limits[3] = {1024, 1024, 64};
  const unsigned long grid_limits[3] = {0x7fffffff, 65535, 65535};
  for (int i = 0; i < 3; ++i) {
    if (block[i] == 0 || block[i] > limits[i])
      return refuse("block dimension", block[i], limits[i]);
    if (grid[i] == 0 || grid[i] > grid_limits[i])
      return refuse("grid dimension", grid[i], grid_limits[i]);
  }
  if (threads > 1024) return refuse("threads of a block", threads, 1024);
  if (threads > static_cast<unsigned>(f->kernel->max_threads))
    return refuse("threads of a block, .maxntid", threads, f->kernel->max_threads);
  const long room = f->opted_in ? f->max_dynamic : 48 * 1024 - f->kernel->static_shared;
  if (static_cast<long>(shared) > room && env("VGPU_ALLOW", 0))
    fprintf(stderr,
            "vgpu: allowed by VGPU_ALLOW: %u bytes of dynamic shared memory beside %d static ones "
            "without cudaFuncSetAttribute: %s\n",
            shared, f->kernel->static_shared, f->kernel->name.c_str());
  else if (static_cast<long>(shared) > room)
    return refuse("dynamic shared memory beside the static (cudaFuncSetAttribute?)", shared, room);
  if (f->kernel->static_shared + static_cast<long>(shared) > max_optin())
    return refuse("shared memory of a block", f->kernel->static_shared + shared, max_optin());

  auto job = std::make_shared<Launch>();
  for (int i = 0; i < 3; ++i)
    job->grid[i] = grid[i], job->block[i] = block[i], job->cluster[i] = cluster ? cluster[i] : 1;
  job->dynamic_shared = shared;
  job->device = current()->device;
  job->peers = 1u << job->device;
  for (const int peer : current()->peers) job->peers |= 1u << peer;
  job->params.resize(f->kernel->param_bytes);
  if (params) {
    for (std::size_t i = 0; i < f->kernel->params.size(); ++i)
      std::memcpy(job->params.data() + f->kernel->params[i].offset, params[i],
                  f->kernel->params[i].size);
  } else if (extra) {
    const void* buffer = nullptr;
    std::size_t size = 0;
    for (void** e = extra; *e != CU_LAUNCH_PARAM_END; e += 2) {
      if (*e == CU_LAUNCH_PARAM_BUFFER_POINTER) buffer = e[1];
      if (*e == CU_LAUNCH_PARAM_BUFFER_SIZE) size = *static_cast<std::size_t*>(e[1]);
    }
    std::memcpy(job->params.data(), buffer, std::min(size, job->params.size()));
  }
  auto module = f->module;
  Kernel* const kernel = f->kernel;
  return enqueue(stream, CU_GRAPH_NODE_TYPE_KERNEL, kernel->name.c_str(), [module, kernel, job] {
    const Fault fault = exec_launch(*module, *kernel, *job);
    if (fault.code) fprintf(stderr, "vgpu: %s\n", fault.text.c_str());
    return static_cast<CUresult>(fault.code);
  });
}

const char* const kNames[] = {nullptr};
}  // namespace

extern "C" {

// --- start
CUresult cuInit(unsigned) {
  API;
  return device_count() > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}
CUresult cuDriverGetVersion(int* v) {
  API;
  *v = env("VGPU_DRIVER", 13000);
  return CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult e, const char** s) {
  switch (e) {
#define E(x) \
  case x:    \
    *s = #x; \
    return CUDA_SUCCESS;
    E(CUDA_SUCCESS)
    E(CUDA_ERROR_INVALID_VALUE) E(CUDA_ERROR_OUT_OF_MEMORY) E(CUDA_ERROR_NOT_INITIALIZED)
        E(CUDA_ERROR_INVALID_CONTEXT) E(CUDA_ERROR_INVALID_HANDLE) E(CUDA_ERROR_NOT_FOUND)
            E(CUDA_ERROR_ILLEGAL_ADDRESS) E(CUDA_ERROR_MISALIGNED_ADDRESS)
                E(CUDA_ERROR_LAUNCH_FAILED) E(CUDA_ERROR_NOT_SUPPORTED) E(CUDA_ERROR_INVALID_PTX)
                    E(CUDA_ERROR_NO_BINARY_FOR_GPU) E(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
                        E(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
                            E(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT) E(CUDA_ERROR_NO_DEVICE)
                                E(CUDA_ERROR_INVALID_DEVICE)
                                    E(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED)
                                        E(CUDA_ERROR_NOT_READY)
#undef E
                                            default : * s = "CUDA_ERROR";
    return CUDA_SUCCESS;
  }
}
CUresult cuGetErrorString(CUresult e, const char** s) { return cuGetErrorName(e, s); }
CUresult cuProfilerStart() {
  API;
  return CUDA_SUCCESS;
}
CUresult cuProfilerStop() {
  API;
  return CUDA_SUCCESS;
}
CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode* m) {
  API;
  *m = CU_MODULE_EAGER_LOADING;
  return CUDA_SUCCESS;
}

// --- devices
CUresult cuDeviceGet(CUdevice* d, int i) {
  API;
  if (i < 0 || i >= device_count()) return CUDA_ERROR_INVALID_DEVICE;
  *d = i;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int* n) {
  API;
  *n = device_count();
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char* s, int n, CUdevice) {
  API;
  snprintf(s, n, "vgpu sm_%d", capability());
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetUuid_v2(CUuuid* u, CUdevice d) {
  API;
  std::memset(u, 0, 16);
  u->bytes[0] = 'v';
  u->bytes[15] = static_cast<char>(d);
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetUuid(CUuuid* u, CUdevice d) { return cuDeviceGetUuid_v2(u, d); }
CUresult cuDeviceGetLuid(char*, unsigned*, CUdevice) {
  API;
  return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult cuDeviceTotalMem_v2(size_t* n, CUdevice) {
  API;
  *n = 16ull << 30;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetPCIBusId(char* s, int n, CUdevice d) {
  API;
  snprintf(s, n, "0000:%02x:00.0", d + 1);
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetByPCIBusId(CUdevice* d, const char* s) {
  API;
  *d = std::strtol(s + 5, nullptr, 16) - 1;
  return CUDA_SUCCESS;
}
CUresult cuDeviceComputeCapability(int* a, int* b, CUdevice) {
  API;
  *a = capability() / 10;
  *b = capability() % 10;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* v, CUdevice_attribute a, CUdevice d) {
  if (log_level() > 1) fprintf(stderr, "vgpu: cuDeviceGetAttribute %d\n", a);
  if (d < 0 || d >= device_count()) return CUDA_ERROR_INVALID_DEVICE;
  switch (static_cast<int>(a)) {
    case 1:
    case 2:
    case 3:
      *v = 1024;
      break;
    case 4:
      *v = 64;
      break;
    case 5:
      *v = 0x7fffffff;
      break;
    case 6:
    case 7:
      *v = 65535;
      break;
    case 8:
      *v = 48 << 10;
      break;
    case 9:
      *v = 64 << 10;
      break;
    case 10:
      *v = 32;
      break;
    case 11:
      *v = 0x7fffffff;
      break;
    case 12:
    case 82:
      *v = 65536;
      break;
    case 13:
      *v = 1500000;
      break;
    case 14:
    case 30:
      *v = 512;
      break;
    case 15:
    case 19:
    case 31:
    case 41:
    case 78:
    case 79:
    case 80:
    case 83:
    case 86:
    case 90:
    case 95:
    case 98:
    case 99:
      *v = 1;
      break;
    case 16:
      *v = env("VGPU_SMS", 4);
      break;
    case 33:
      *v = d + 1;
      break;
    case 34:
    case 50:
      *v = 0;
      break;
    case 36:
      *v = 2000000;
      break;
    case 37:
      *v = 5120;
      break;
    case 38:
      *v = 50 << 20;
      break;
    case 39:
      *v = capability() == 75 ? 1024 : capability() == 86 || capability() == 89 ? 1536 : 2048;
      break;
    case 40:
      *v = 3;
      break;
    case 75:
      *v = capability() / 10;
      break;
    case 76:
      *v = capability() % 10;
      break;
    case 81:
      *v = max_optin() + 1024;
      break;
    case 97:
      *v = max_optin();
      break;
    case 106:
      *v = capability() == 75 ? 16 : capability() == 80 || capability() >= 90 ? 32 : 24;
      break;
    case 111:
      *v = capability() >= 80 ? 1024 : 0;
      break;
    case 115:
      *v = 0;
      break;  // memory pools: not yet
    case 120:
    case 127:
      *v = capability() >= 90;
      break;
    default:
      *v = 0;
  }
  return CUDA_SUCCESS;
}
CUresult cuDeviceCanAccessPeer(int* v, CUdevice a, CUdevice b) {
  API;
  *v = a != b;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetP2PAttribute(int* v, CUdevice_P2PAttribute, CUdevice, CUdevice) {
  API;
  *v = 1;
  return CUDA_SUCCESS;
}

// --- contexts
CUresult cuDevicePrimaryCtxRetain(CUcontext* c, CUdevice d) {
  API;
  if (d < 0 || d >= device_count()) return CUDA_ERROR_INVALID_DEVICE;
  *c = primary(d);
  (*c)->active = true;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) {
  API;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) {
  API;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxReset_v2(CUdevice d) {
  API;
  primary(d)->error = 0;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice d, unsigned f) {
  API;
  primary(d)->flags = f;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxGetState(CUdevice d, unsigned* f, int* a) {
  API;
  *f = primary(d)->flags;
  *a = primary(d)->active;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext* c) {
  API;
  *c = current();
  return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext c) {
  API;
  if (!stack.empty()) stack.pop_back();
  if (c) stack.push_back(c);
  return CUDA_SUCCESS;
}
CUresult cuCtxPushCurrent_v2(CUcontext c) {
  API;
  stack.push_back(c);
  return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent_v2(CUcontext* c) {
  API;
  if (stack.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (c) *c = stack.back();
  stack.pop_back();
  return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice* d) {
  API;
  if (!current()) return CUDA_ERROR_INVALID_CONTEXT;
  *d = current()->device;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice_v2(CUdevice* d, CUcontext c) {
  API;
  *d = c->device;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetFlags(unsigned* f) {
  API;
  *f = current() ? current()->flags : 0;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetApiVersion(CUcontext, unsigned* v) {
  API;
  *v = 3020;
  return CUDA_SUCCESS;
}
CUresult cuCtxSynchronize() {
  API;
  NEED_CONTEXT;
  return unsafe_in_capture("cuCtxSynchronize");
}
CUresult cuCtxSynchronize_v2(CUcontext c) {
  API;
  if (c->error) return static_cast<CUresult>(c->error);
  return unsafe_in_capture("cuCtxSynchronize");
}
CUresult cuCtxGetStreamPriorityRange(int* a, int* b) {
  API;
  if (a) *a = 0;
  if (b) *b = -5;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetLimit(size_t* v, CUlimit) {
  API;
  *v = 1024;
  return CUDA_SUCCESS;
}
CUresult cuCtxSetLimit(CUlimit, size_t) {
  API;
  return CUDA_SUCCESS;
}
CUresult cuCtxSetCacheConfig(CUfunc_cache) {
  API;
  return CUDA_SUCCESS;
}
CUresult cuCtxEnablePeerAccess(CUcontext c, unsigned) {
  API;
  NEED_CONTEXT;
  return current()->peers.insert(c->device).second ? CUDA_SUCCESS
                                                   : CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
}
CUresult cuCtxDisablePeerAccess(CUcontext c) {
  API;
  NEED_CONTEXT;
  return current()->peers.erase(c->device) ? CUDA_SUCCESS : CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
}

// --- memory
CUresult cuMemGetInfo_v2(size_t* f, size_t* t) {
  API;
  *t = 16ull << 30;
  *f = *t - memory_used();
  return CUDA_SUCCESS;
}
CUresult cuMemAlloc_v2(CUdeviceptr* p, size_t n) {
  API;
  NEED_CONTEXT;
  if (CUresult e = unsafe_in_capture("cuMemAlloc")) return e;
  if (n == 0) return CUDA_ERROR_INVALID_VALUE;
  if (memory_used() + n > (16ull << 30)) return CUDA_ERROR_OUT_OF_MEMORY;
  *p = memory_alloc(n, current()->device);
  return *p ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
CUresult cuMemFree_v2(CUdeviceptr p) {
  API;
  if (CUresult e = unsafe_in_capture("cuMemFree")) return e;
  return p == 0 || memory_free(p) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMemAllocHost_v2(void** p, size_t n) {
  API;
  *p = std::aligned_alloc(4096, (n + 4095) / 4096 * 4096);
  memory_add_host(*p, n);
  return CUDA_SUCCESS;
}
CUresult cuMemHostAlloc(void** p, size_t n, unsigned) { return cuMemAllocHost_v2(p, n); }
CUresult cuMemFreeHost(void* p) {
  API;
  memory_free(reinterpret_cast<std::uint64_t>(p));
  std::free(p);
  return CUDA_SUCCESS;
}
CUresult cuMemHostRegister_v2(void* p, size_t n, unsigned) {
  API;
  memory_add_host(p, n);
  return CUDA_SUCCESS;
}
CUresult cuMemHostUnregister(void* p) {
  API;
  return memory_free(reinterpret_cast<std::uint64_t>(p)) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* d, void* p, unsigned) {
  API;
  *d = reinterpret_cast<CUdeviceptr>(p);
  return CUDA_SUCCESS;
}
CUresult cuMemGetAddressRange_v2(CUdeviceptr* b, size_t* n, CUdeviceptr p) {
  API;
  const Allocation* a = memory_find(p);
  if (!a) return CUDA_ERROR_INVALID_VALUE;
  if (b) *b = a->base;
  if (n) *n = a->size;
  return CUDA_SUCCESS;
}
CUresult cuPointerGetAttribute(void* v, CUpointer_attribute a, CUdeviceptr p) {
  if (log_level() > 1) fprintf(stderr, "vgpu: cuPointerGetAttribute %d\n", a);
  const Allocation* m = memory_find(p);
  switch (a) {
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      *static_cast<unsigned*>(v) = 0;
      return CUDA_SUCCESS;
    default:
      break;
  }
  if (!m) return CUDA_ERROR_INVALID_VALUE;
  switch (a) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      *static_cast<CUcontext*>(v) = primary(m->device);
      break;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *static_cast<unsigned*>(v) = m->host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
      break;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      *static_cast<CUdeviceptr*>(v) = p;
      break;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      if (!m->host) return CUDA_ERROR_INVALID_VALUE;
      *static_cast<void**>(v) = reinterpret_cast<void*>(p);
      break;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *static_cast<int*>(v) = m->device;
      break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      *static_cast<CUdeviceptr*>(v) = m->base;
      break;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      *static_cast<size_t*>(v) = m->size;
      break;
    case CU_POINTER_ATTRIBUTE_MAPPED:
      *static_cast<bool*>(v) = true;
      break;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
  return CUDA_SUCCESS;
}
CUresult cuPointerGetAttributes(unsigned n, CUpointer_attribute* a, void** v, CUdeviceptr p) {
  API;
  for (unsigned i = 0; i < n; ++i) {
    const std::size_t size = a[i] == CU_POINTER_ATTRIBUTE_MEMORY_TYPE ||
                                     a[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL ||
                                     a[i] == CU_POINTER_ATTRIBUTE_IS_MANAGED
                                 ? 4
                                 : 8;
    if (cuPointerGetAttribute(v[i], a[i], p))
      std::memset(v[i], a[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL ? 0xfe : 0, size);
  }
  return CUDA_SUCCESS;
}
CUresult cuMemcpy(CUdeviceptr a, CUdeviceptr b, size_t n) {
  API;
  return copy(a, b, n, nullptr, true);
}
CUresult cuMemcpyAsync(CUdeviceptr a, CUdeviceptr b, size_t n, CUstream s) {
  API;
  return copy(a, b, n, s, false);
}
CUresult cuMemcpyHtoD_v2(CUdeviceptr a, const void* b, size_t n) {
  API;
  return copy(a, reinterpret_cast<CUdeviceptr>(b), n, nullptr, true);
}
CUresult cuMemcpyDtoH_v2(void* a, CUdeviceptr b, size_t n) {
  API;
  return copy(reinterpret_cast<CUdeviceptr>(a), b, n, nullptr, true);
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr a, CUdeviceptr b, size_t n) {
  API;
  return copy(a, b, n, nullptr, false);
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr a, const void* b, size_t n, CUstream s) {
  API;
  return copy(a, reinterpret_cast<CUdeviceptr>(b), n, s, false);
}
CUresult cuMemcpyDtoHAsync_v2(void* a, CUdeviceptr b, size_t n, CUstream s) {
  API;
  return copy(reinterpret_cast<CUdeviceptr>(a), b, n, s, false);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr a, CUdeviceptr b, size_t n, CUstream s) {
  API;
  return copy(a, b, n, s, false);
}
CUresult cuMemcpyPeer(CUdeviceptr a, CUcontext, CUdeviceptr b, CUcontext, size_t n) {
  API;
  return copy(a, b, n, nullptr, false);
}
CUresult cuMemcpyPeerAsync(CUdeviceptr a, CUcontext, CUdeviceptr b, CUcontext, size_t n,
                           CUstream s) {
  API;
  return copy(a, b, n, s, false);
}
CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D* c) {
  API;
  return copy2d(*c, nullptr);
}
CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* c) {
  API;
  return copy2d(*c, nullptr);
}
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* c, CUstream s) {
  API;
  return copy2d(*c, s);
}
CUresult cuMemsetD8_v2(CUdeviceptr p, unsigned char v, size_t n) {
  API;
  return fill(p, v, n, nullptr);
}
CUresult cuMemsetD16_v2(CUdeviceptr p, unsigned short v, size_t n) {
  API;
  return fill(p, v, n, nullptr);
}
CUresult cuMemsetD32_v2(CUdeviceptr p, unsigned v, size_t n) {
  API;
  return fill(p, v, n, nullptr);
}
CUresult cuMemsetD8Async(CUdeviceptr p, unsigned char v, size_t n, CUstream s) {
  API;
  return fill(p, v, n, s);
}
CUresult cuMemsetD16Async(CUdeviceptr p, unsigned short v, size_t n, CUstream s) {
  API;
  return fill(p, v, n, s);
}
CUresult cuMemsetD32Async(CUdeviceptr p, unsigned v, size_t n, CUstream s) {
  API;
  return fill(p, v, n, s);
}
CUresult cuMemsetD2D8_v2(CUdeviceptr p, size_t pitch, unsigned char v, size_t w, size_t h) {
  API;
  return fill2d(p, pitch, v, w, h, nullptr);
}
CUresult cuMemsetD2D8Async(CUdeviceptr p, size_t pitch, unsigned char v, size_t w, size_t h,
                           CUstream s) {
  API;
  return fill2d(p, pitch, v, w, h, s);
}

// --- streams
CUresult cuStreamCreateWithPriority(CUstream* s, unsigned flags, int priority) {
  API;
  NEED_CONTEXT;
  *s = new CUstream_st;
  (*s)->context = current();
  (*s)->flags = flags;
  (*s)->priority = priority;
  return CUDA_SUCCESS;
}
CUresult cuStreamCreate(CUstream* s, unsigned flags) {
  return cuStreamCreateWithPriority(s, flags, 0);
}
CUresult cuStreamDestroy_v2(CUstream s) {
  API;
  delete s;
  return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream s) {
  API;
  NEED_CONTEXT;
  if (stream_of(s)->capturing) {
    stream_of(s)->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return is_legacy(s) ? unsafe_in_capture("synchronizing the legacy stream") : CUDA_SUCCESS;
}
CUresult cuStreamQuery(CUstream) {
  API;
  NEED_CONTEXT;
  return CUDA_SUCCESS;
}
CUresult cuStreamGetFlags(CUstream s, unsigned* f) {
  API;
  *f = stream_of(s)->flags;
  return CUDA_SUCCESS;
}
CUresult cuStreamGetPriority(CUstream s, int* p) {
  API;
  *p = stream_of(s)->priority;
  return CUDA_SUCCESS;
}
CUresult cuStreamGetCtx(CUstream s, CUcontext* c) {
  API;
  *c = stream_of(s)->context;
  return CUDA_SUCCESS;
}
CUresult cuStreamGetDevice(CUstream s, CUdevice* d) {
  API;
  *d = stream_of(s)->context->device;
  return CUDA_SUCCESS;
}
CUresult cuStreamGetId(CUstream s, unsigned long long* id) {
  API;
  *id = reinterpret_cast<unsigned long long>(stream_of(s));
  return CUDA_SUCCESS;
}
CUresult cuStreamWaitEvent(CUstream handle, CUevent e, unsigned) {
  API;
  NEED_CONTEXT;
  CUstream s = stream_of(handle);
  if (e->capturing) {
    if (!s->capturing) {
      s->capturing = e->capturing;
      s->capture_id = e->captured_in->capture_id;
      s->origin = false;
      s->front.clear();
    }
    if (s->capturing != e->capturing) return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    for (CUgraphNode n : e->front) s->front.push_back(n);
  } else if (s->capturing && e->recorded) {
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  return CUDA_SUCCESS;
}
CUresult cuStreamAddCallback(CUstream s, CUstreamCallback f, void* data, unsigned) {
  API;
  f(s, CUDA_SUCCESS, data);
  return CUDA_SUCCESS;
}
CUresult cuLaunchHostFunc(CUstream s, CUhostFn f, void* data) {
  API;
  return enqueue(s, CU_GRAPH_NODE_TYPE_HOST, "host", [=] {
    f(data);
    return CUDA_SUCCESS;
  });
}

// --- capture and graphs
CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* m) {
  API;
  std::swap(*m, thread_mode);
  return CUDA_SUCCESS;
}
CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
  API;
  NEED_CONTEXT;
  if (is_legacy(handle)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  CUstream s = stream_of(handle);
  if (s->capturing) return CUDA_ERROR_ILLEGAL_STATE;
  static unsigned long long ids = 0;
  s->capturing = new CUgraph_st;
  s->origin = true;
  s->invalid = false;
  s->mode = mode;
  s->capture_id = ++ids;
  s->front.clear();
  if (mode != CU_STREAM_CAPTURE_MODE_RELAXED) ++captures;
  return CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream s, CUgraph* g) {
  API;
  if (!s->capturing) return CUDA_ERROR_ILLEGAL_STATE;
  if (!s->origin) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  if (s->mode != CU_STREAM_CAPTURE_MODE_RELAXED) --captures;
  *g = s->invalid ? nullptr : s->capturing;
  s->capturing = nullptr;
  return s->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
}
CUresult cuStreamIsCapturing(CUstream s, CUstreamCaptureStatus* v) {
  API;
  if (is_legacy(s) && captures > 0) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  *v = !stream_of(s)->capturing ? CU_STREAM_CAPTURE_STATUS_NONE
       : stream_of(s)->invalid  ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  return CUDA_SUCCESS;
}
CUresult cuStreamGetCaptureInfo_v2(CUstream h, CUstreamCaptureStatus* v, cuuint64_t* id, CUgraph* g,
                                   const CUgraphNode** deps, size_t* n) {
  CUstream s = stream_of(h);
  const CUresult e = cuStreamIsCapturing(h, v);
  if (e) return e;
  if (id) *id = s->capture_id;
  if (g) *g = s->capturing;
  if (deps) *deps = s->front.data();
  if (n) *n = s->front.size();
  return CUDA_SUCCESS;
}
CUresult cuStreamGetCaptureInfo_v3(CUstream h, CUstreamCaptureStatus* v, cuuint64_t* id, CUgraph* g,
                                   const CUgraphNode** deps, const CUgraphEdgeData** edges,
                                   size_t* n) {
  if (edges) *edges = nullptr;
  return cuStreamGetCaptureInfo_v2(h, v, id, g, deps, n);
}
CUresult cuGraphCreate(CUgraph* g, unsigned) {
  API;
  *g = new CUgraph_st;
  return CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph g) {
  API;
  for (CUgraphNode n : g->nodes) delete n;
  delete g;
  return CUDA_SUCCESS;
}
CUresult cuGraphGetNodes(CUgraph g, CUgraphNode* nodes, size_t* n) {
  API;
  if (nodes)
    for (size_t i = 0; i < *n && i < g->nodes.size(); ++i) nodes[i] = g->nodes[i];
  *n = g->nodes.size();
  return CUDA_SUCCESS;
}
CUresult cuGraphNodeGetType(CUgraphNode n, CUgraphNodeType* t) {
  API;
  *t = n->type;
  return CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec* x, CUgraph g, unsigned long long) {
  API;
  *x = new CUgraphExec_st;
  for (CUgraphNode n : g->nodes) (*x)->nodes.push_back(*n);
  return CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithParams(CUgraphExec* x, CUgraph g, CUDA_GRAPH_INSTANTIATE_PARAMS* p) {
  p->result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
  return cuGraphInstantiateWithFlags(x, g, 0);
}
CUresult cuGraphInstantiate_v2(CUgraphExec* x, CUgraph g, CUgraphNode*, char*, size_t) {
  return cuGraphInstantiateWithFlags(x, g, 0);
}
CUresult cuGraphExecDestroy(CUgraphExec x) {
  API;
  delete x;
  return CUDA_SUCCESS;
}
CUresult cuGraphUpload(CUgraphExec, CUstream) {
  API;
  return CUDA_SUCCESS;
}
CUresult cuGraphLaunch(CUgraphExec x, CUstream s) {
  API;
  return enqueue(s, CU_GRAPH_NODE_TYPE_GRAPH, "graph", [x] {
    for (Node& n : x->nodes)
      if (CUresult e = n.run()) return e;
    return CUDA_SUCCESS;
  });
}

// --- events
CUresult cuEventCreate(CUevent* e, unsigned flags) {
  API;
  NEED_CONTEXT;
  *e = new CUevent_st;
  (*e)->device = current()->device;
  (*e)->flags = flags;
  return CUDA_SUCCESS;
}
CUresult cuEventDestroy_v2(CUevent e) {
  API;
  delete e;
  return CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent e, CUstream h) {
  API;
  NEED_CONTEXT;
  CUstream s = stream_of(h);
  if (s->context->device != e->device) return CUDA_ERROR_INVALID_HANDLE;
  e->capturing = s->capturing;
  e->captured_in = s;
  e->front = s->front;
  e->recorded = !s->capturing;
  e->when = std::chrono::steady_clock::now();
  return CUDA_SUCCESS;
}
CUresult cuEventRecordWithFlags(CUevent e, CUstream s, unsigned) { return cuEventRecord(e, s); }
CUresult cuEventQuery(CUevent e) {
  API;
  return e->capturing ? CUDA_ERROR_CAPTURED_EVENT : CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent e) {
  API;
  NEED_CONTEXT;
  return e->capturing ? CUDA_ERROR_CAPTURED_EVENT : CUDA_SUCCESS;
}
CUresult cuEventElapsedTime_v2(float* ms, CUevent a, CUevent b) {
  API;
  if (!a->recorded || !b->recorded || (a->flags & CU_EVENT_DISABLE_TIMING))
    return CUDA_ERROR_INVALID_HANDLE;
  *ms = std::chrono::duration<float, std::milli>(b->when - a->when).count();
  return CUDA_SUCCESS;
}
CUresult cuEventElapsedTime(float* ms, CUevent a, CUevent b) {
  return cuEventElapsedTime_v2(ms, a, b);
}

// --- modules, libraries, functions
CUresult cuModuleLoadData(CUmodule* m, const void* image) {
  API;
  NEED_CONTEXT;
  return load(image, m);
}
CUresult cuModuleLoadDataEx(CUmodule* m, const void* image, unsigned, CUjit_option*, void**) {
  API;
  NEED_CONTEXT;
  return load(image, m);
}
CUresult cuModuleLoadFatBinary(CUmodule* m, const void* image) {
  API;
  NEED_CONTEXT;
  return load(image, m);
}
CUresult cuModuleLoad(CUmodule* m, const char* path) {
  API;
  FILE* f = fopen(path, "rb");
  if (!f) return CUDA_ERROR_FILE_NOT_FOUND;
  std::string text;
  char buffer[65536];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, f)) > 0;) text.append(buffer, n);
  fclose(f);
  return load(text.c_str(), m);
}
CUresult cuModuleUnload(CUmodule) {
  API;
  return CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction* f, CUmodule m, const char* name) {
  API;
  *f = function_of(m, name);
  return *f ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
CUresult cuModuleGetGlobal_v2(CUdeviceptr* p, size_t* n, CUmodule m, const char* name) {
  API;
  const auto it = m->module->globals.find(name);
  if (it == m->module->globals.end()) return CUDA_ERROR_NOT_FOUND;
  if (p) *p = it->second.address;
  if (n) *n = it->second.size;
  return CUDA_SUCCESS;
}
CUresult cuLibraryLoadData(CUlibrary* l, const void* image, CUjit_option*, void**, unsigned,
                           CUlibraryOption*, void**, unsigned) {
  API;
  std::string error, text = image_ptx(image, &error);
  if (!error.empty()) {
    fprintf(stderr, "vgpu: library: %s\n", error.c_str());
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  *l = new CUlib_st{std::move(text), {}, {}};
  return CUDA_SUCCESS;
}
CUresult cuLibraryUnload(CUlibrary) {
  API;
  return CUDA_SUCCESS;
}
CUresult cuLibraryGetKernel(CUkernel* k, CUlibrary l, const char* name) {
  API;
  CUkernel& made = l->kernels[name];
  if (!made) {
    made = new CUkern_st{l, name, {}};
    kernel_handles().insert(made);
  }
  *k = made;
  return CUDA_SUCCESS;
}
CUresult cuLibraryGetModule(CUmodule* m, CUlibrary l) {
  API;
  NEED_CONTEXT;
  *m = module_of(l, current()->device);
  return *m ? CUDA_SUCCESS : CUDA_ERROR_INVALID_PTX;
}
CUresult cuLibraryGetGlobal(CUdeviceptr* p, size_t* n, CUlibrary l, const char* name) {
  CUmodule m;
  CUresult e = cuLibraryGetModule(&m, l);
  return e ? e : cuModuleGetGlobal_v2(p, n, m, name);
}
CUresult cuKernelGetFunction(CUfunction* f, CUkernel k) {
  API;
  NEED_CONTEXT;
  *f = resolve(reinterpret_cast<CUfunction>(k));
  return *f ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
CUresult cuKernelGetName(const char** name, CUkernel k) {
  API;
  *name = k->name.c_str();
  return CUDA_SUCCESS;
}
CUresult cuKernelGetAttribute(int* v, CUfunction_attribute a, CUkernel k, CUdevice) {
  API;
  return cuFuncGetAttribute(v, a, reinterpret_cast<CUfunction>(k));
}
CUresult cuKernelSetAttribute(CUfunction_attribute a, int v, CUkernel k, CUdevice) {
  API;
  k->attributes[a] = v;
  return cuFuncSetAttribute(reinterpret_cast<CUfunction>(k), a, v);
}
CUresult cuKernelSetCacheConfig(CUkernel, CUfunc_cache, CUdevice) {
  API;
  return CUDA_SUCCESS;
}
CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) {
  API;
  return CUDA_SUCCESS;
}
CUresult cuFuncGetName(const char** name, CUfunction f) {
  API;
  *name = resolve(f)->kernel->name.c_str();
  return CUDA_SUCCESS;
}
CUresult cuFuncGetModule(CUmodule*, CUfunction) {
  API;
  return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult cuFuncLoad(CUfunction) {
  API;
  return CUDA_SUCCESS;
}
CUresult cuFuncIsLoaded(CUfunctionLoadingState* s, CUfunction) {
  API;
  *s = CU_FUNCTION_LOADING_STATE_LOADED;
  return CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int* v, CUfunction_attribute a, CUfunction h) {
  API;
  CUfunction f = resolve(h);
  if (!f) return CUDA_ERROR_INVALID_HANDLE;
  std::string error;
  if (!ptx_decode(*f->module, *f->kernel, &error))
    return fprintf(stderr, "vgpu: %s\n", error.c_str()), CUDA_ERROR_INVALID_PTX;
  switch (a) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *v = f->kernel->max_threads;
      break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
      *v = f->kernel->static_shared;
      break;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
      *v = 0;
      break;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
      *v = f->kernel->local_bytes;
      break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      *v = 32;
      break;  // only ptxas knows
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
      *v = f->module->target;
      break;
    case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
      *v = 1;
      break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *v = f->opted_in ? f->max_dynamic : 48 * 1024 - f->kernel->static_shared;
      break;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      *v = f->carveout;
      break;
    default:
      *v = 0;
  }
  return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction h, CUfunction_attribute a, int v) {
  API;
  CUfunction f = resolve(h);
  if (!f) return CUDA_ERROR_INVALID_HANDLE;
  std::string error;
  if (!ptx_decode(*f->module, *f->kernel, &error))
    return fprintf(stderr, "vgpu: %s\n", error.c_str()), CUDA_ERROR_INVALID_PTX;
  if (a == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
    if (v < 0 || v + f->kernel->static_shared > max_optin()) return CUDA_ERROR_INVALID_VALUE;
    f->max_dynamic = v;
    f->opted_in = true;
  } else if (a == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) {
    f->carveout = v;
  }
  return CUDA_SUCCESS;
}
CUresult cuFuncGetParamInfo(CUfunction h, size_t i, size_t* offset, size_t* size) {
  API;
  CUfunction f = resolve(h);
  if (i >= f->kernel->params.size()) return CUDA_ERROR_INVALID_VALUE;
  *offset = f->kernel->params[i].offset;
  if (size) *size = f->kernel->params[i].size;
  return CUDA_SUCCESS;
}
CUresult cuKernelGetParamInfo(CUkernel k, size_t i, size_t* o, size_t* s) {
  return cuFuncGetParamInfo(reinterpret_cast<CUfunction>(k), i, o, s);
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, CUfunction h, int threads,
                                                              size_t shared, unsigned) {
  API;
  CUfunction f = resolve(h);
  int per_sm = 0;
  cuDeviceGetAttribute(&per_sm, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 0);
  const long bytes = f->kernel->static_shared + static_cast<long>(shared) + 1024;
  *n = static_cast<int>(
      std::min<long>(per_sm / ((threads + 31) / 32 * 32), (max_optin() + 1024) / bytes));
  return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, CUfunction f, int threads,
                                                     size_t shared) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(n, f, threads, shared, 0);
}

// --- tensor maps
CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank,
                                void* address, const cuuint64_t* size, const cuuint64_t* stride,
                                const cuuint32_t* box, const cuuint32_t* step,
                                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  API;
  const unsigned element =
      type == CU_TENSOR_MAP_DATA_TYPE_UINT8 ? 1
      : type == CU_TENSOR_MAP_DATA_TYPE_UINT16 || type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 ||
              type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
          ? 2
      : type == CU_TENSOR_MAP_DATA_TYPE_UINT64 || type == CU_TENSOR_MAP_DATA_TYPE_INT64 ||
              type == CU_TENSOR_MAP_DATA_TYPE_FLOAT64
          ? 8
          : 4;
  const unsigned span = swizzle == CU_TENSOR_MAP_SWIZZLE_32B    ? 32
                        : swizzle == CU_TENSOR_MAP_SWIZZLE_64B  ? 64
                        : swizzle == CU_TENSOR_MAP_SWIZZLE_128B ? 128
                                                                : 0;
  if (rank < 1 || rank > 5 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
      fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE || reinterpret_cast<std::uintptr_t>(address) % 16 ||
      reinterpret_cast<std::uintptr_t>(map) % 64 || box[0] * element % 16 ||
      (span && box[0] * element > span))
    return CUDA_ERROR_INVALID_VALUE;
  TensorMap t = {};
  t.magic = TensorMap::kMagic, t.rank = rank, t.address = reinterpret_cast<std::uint64_t>(address),
  t.element = static_cast<std::uint8_t>(element);
  t.swizzle = span == 32 ? 1 : span == 64 ? 2 : span == 128 ? 3 : 0;
  for (unsigned r = 0; r < rank; ++r) {
    if (size[r] == 0 || size[r] > 1ull << 32 || box[r] == 0 || box[r] > 256 || step[r] == 0 ||
        step[r] > 8)
      return CUDA_ERROR_INVALID_VALUE;
    t.size[r] = static_cast<std::uint32_t>(size[r]), t.box[r] = box[r],
    t.step[r] = static_cast<std::uint8_t>(step[r]);
    if (r + 1 < rank) {
      if (stride[r] % 16 || stride[r] >= 1ull << 40) return CUDA_ERROR_INVALID_VALUE;
      t.stride[r] = stride[r];
    }
  }
  std::memcpy(map, &t, sizeof t);
  return CUDA_SUCCESS;
}

// --- launches
CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                        unsigned by, unsigned bz, unsigned shared, CUstream s, void** params,
                        void** extra) {
  API;
  const unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
  return launch(f, grid, block, nullptr, shared, s, params, extra);
}
CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                                   unsigned by, unsigned bz, unsigned shared, CUstream s,
                                   void** params) {
  return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, s, params, nullptr);
}
CUresult cuLaunchKernelEx(const CUlaunchConfig* c, CUfunction f, void** params, void** extra) {
  API;
  const unsigned grid[] = {c->gridDimX, c->gridDimY, c->gridDimZ},
                 block[] = {c->blockDimX, c->blockDimY, c->blockDimZ};
  unsigned cluster[] = {1, 1, 1};
  for (unsigned i = 0; i < c->numAttrs; ++i)
    if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
      const auto& d = c->attrs[i].value.clusterDim;
      cluster[0] = d.x, cluster[1] = d.y, cluster[2] = d.z;
    }
  return launch(f, grid, block, cluster, c->sharedMemBytes, c->hStream, params, extra);
}

}  // extern "C"
