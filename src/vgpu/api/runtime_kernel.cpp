// The runtime API: what nvcc's host code registers and calls, launches and kernel attributes.
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "vgpu/api/runtime.h"

namespace vgpu::runtime {

namespace {

struct Binary {
  const void* image;
  CUlibrary library = nullptr;

  CUresult load() {
    if (library) return CUDA_SUCCESS;
    return cuLibraryLoadData(&library, image, nullptr, nullptr, 0, nullptr, nullptr, 0);
  }
};

// A kernel or a variable: the host's symbol stands for a name in a binary.
struct Symbol {
  Binary* binary;
  std::string name;
  CUkernel kernel = nullptr;
};

std::mutex registry_mutex;
std::map<const void*, Symbol>& kernels() {
  static auto* const map = new std::map<const void*, Symbol>;
  return *map;
}
std::map<const void*, Symbol>& variables() {
  static auto* const map = new std::map<const void*, Symbol>;
  return *map;
}

struct Configuration {
  dim3 grid, block;
  size_t shared;
  void* stream;
};
thread_local std::vector<Configuration> configurations;

// A function of the API over the kernel that a host function stands for.
template <typename F>
cudaError_t with_kernel(const void* host, F&& body) {
  return run([&] {
    CUkernel kernel = nullptr;
    const CUresult result = kernel_of(host, &kernel);
    return result == CUDA_SUCCESS ? body(kernel) : result;
  });
}

CUresult launch(CUkernel kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                cudaStream_t stream) {
  return cuLaunchKernel(reinterpret_cast<CUfunction>(kernel), grid.x, grid.y, grid.z, block.x,
                        block.y, block.z, static_cast<unsigned>(shared), stream, arguments,
                        nullptr);
}

}  // namespace

CUresult kernel_of(const void* host, CUkernel* kernel) {
  const std::lock_guard lock(registry_mutex);
  const auto found = kernels().find(host);
  if (found == kernels().end()) {  // a cudaKernel_t
    *kernel = static_cast<CUkernel>(const_cast<void*>(host));
    return CUDA_SUCCESS;
  }
  Symbol& symbol = found->second;
  if (!symbol.kernel) {
    CUresult result = symbol.binary->load();
    if (result == CUDA_SUCCESS)
      result = cuLibraryGetKernel(&symbol.kernel, symbol.binary->library, symbol.name.c_str());
    if (result != CUDA_SUCCESS) return result;
  }
  *kernel = symbol.kernel;
  return CUDA_SUCCESS;
}

}  // namespace vgpu::runtime

using namespace vgpu::runtime;

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
  const std::lock_guard lock(registry_mutex);
  kernels()[host] = {reinterpret_cast<Binary*>(binary), name};
}
void __cudaRegisterVar(void** binary, char* host, char*, const char* name, int, size_t, int, int) {
  const std::lock_guard lock(registry_mutex);
  variables()[host] = {reinterpret_cast<Binary*>(binary), name};
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
  configurations.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  const Configuration c = configurations.back();
  configurations.pop_back();
  *grid = c.grid, *block = c.block, *shared = c.shared;
  std::memcpy(stream, &c.stream, sizeof c.stream);
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  return note(kernel_of(host, kernel));
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t stream) {
  return run([&] { return launch(kernel, grid, block, arguments, shared, stream); });
}

// --- launches
cudaError_t cudaLaunchKernel(const void* host, dim3 grid, dim3 block, void** arguments,
                             size_t shared, cudaStream_t stream) {
  return with_kernel(host, [&](CUkernel kernel) {
    return launch(kernel, grid, block, arguments, shared, stream);
  });
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* host, void** arguments) {
  return with_kernel(host, [&](CUkernel kernel) {
    std::vector<CUlaunchAttribute> attributes(c->numAttrs);
    static_assert(sizeof(CUlaunchAttribute) == sizeof(cudaLaunchAttribute));
    for (unsigned i = 0; i < c->numAttrs; ++i)
      std::memcpy(&attributes[i], &c->attrs[i], sizeof attributes[i]);
    CUlaunchConfig to = {};
    to.gridDimX = c->gridDim.x, to.gridDimY = c->gridDim.y, to.gridDimZ = c->gridDim.z;
    to.blockDimX = c->blockDim.x, to.blockDimY = c->blockDim.y, to.blockDimZ = c->blockDim.z;
    to.sharedMemBytes = static_cast<unsigned>(c->dynamicSmemBytes);
    to.hStream = c->stream;
    to.attrs = attributes.data();
    to.numAttrs = c->numAttrs;
    return cuLaunchKernelEx(&to, reinterpret_cast<CUfunction>(kernel), arguments, nullptr);
  });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return run([&] { return cuLaunchHostFunc(stream, function, data); });
}

// --- attributes
cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute attribute, int value) {
  return with_kernel(host, [&](CUkernel kernel) {
    return cuKernelSetAttribute(static_cast<CUfunction_attribute>(attribute), value, kernel,
                                chosen_device());
  });
}
cudaError_t cudaFuncGetName(const char** name, const void* host) {
  return with_kernel(host, [&](CUkernel kernel) { return cuKernelGetName(name, kernel); });
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void* host) {
  return with_kernel(host, [&](CUkernel kernel) {
    CUresult result = CUDA_SUCCESS;
    const auto get = [&](CUfunction_attribute which) {
      int value = 0;
      if (result == CUDA_SUCCESS)
        result = cuKernelGetAttribute(&value, which, kernel, chosen_device());
      return value;
    };
    *a = {};
    a->sharedSizeBytes = static_cast<size_t>(get(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES));
    a->localSizeBytes = static_cast<size_t>(get(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES));
    a->maxThreadsPerBlock = get(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    a->numRegs = get(CU_FUNC_ATTRIBUTE_NUM_REGS);
    a->ptxVersion = get(CU_FUNC_ATTRIBUTE_PTX_VERSION);
    a->binaryVersion = get(CU_FUNC_ATTRIBUTE_BINARY_VERSION);
    a->maxDynamicSharedSizeBytes = get(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
    return result;
  });
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* host,
                                                                   int threads, size_t shared,
                                                                   unsigned flags) {
  return with_kernel(host, [&](CUkernel kernel) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks, reinterpret_cast<CUfunction>(kernel), threads, shared, flags);
  });
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* host,
                                                          int threads, size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, host, threads, shared, 0);
}

}  // extern "C"
