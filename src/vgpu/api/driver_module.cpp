// The driver API: modules, libraries, kernels and launches.
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

#include "vgpu/api/call.h"
#include "vgpu/api/context.h"
#include "vgpu/api/device.h"
#include "vgpu/api/launch.h"
#include "vgpu/api/module.h"
#include "vgpu/api/register_table.h"
#include "vgpu/api/tensor_map.h"

using namespace vgpu;

namespace {

CUfunction handle_of(CUkernel kernel) { return reinterpret_cast<CUfunction>(kernel); }

void write_global(const Global& global, CUdeviceptr* address, size_t* bytes) {
  if (address) *address = global.address;
  if (bytes) *bytes = global.size;
}

void parameter(CUfunction handle, size_t index, size_t* offset, size_t* size) {
  const Kernel& kernel = *resolve(handle).kernel;
  require(index < kernel.params.size(), CUDA_ERROR_INVALID_VALUE);
  *offset = static_cast<size_t>(kernel.params[index].offset);
  if (size) *size = static_cast<size_t>(kernel.params[index].size);
}

}  // namespace

extern "C" {

// --- modules and libraries
CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  return call(__func__, [&] { *module = load_module(image); });
}
CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned, CUjit_option*, void**) {
  return call(__func__, [&] { *module = load_module(image); });
}
CUresult cuModuleLoadFatBinary(CUmodule* module, const void* image) {
  return call(__func__, [&] { *module = load_module(image); });
}
CUresult cuModuleLoad(CUmodule* module, const char* path) {
  return call(__func__, [&] { *module = load_module_file(path); });
}
CUresult cuModuleUnload(CUmodule) {
  return call(__func__, [] {});
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  return call(__func__, [&] { *function = &function_of(*module, name); });
}
CUresult cuModuleGetGlobal_v2(CUdeviceptr* address, size_t* bytes, CUmodule module,
                              const char* name) {
  return call(__func__, [&] { write_global(global_of(*module, name), address, bytes); });
}
CUresult cuLibraryLoadData(CUlibrary* library, const void* image, CUjit_option*, void**, unsigned,
                           CUlibraryOption*, void**, unsigned) {
  return call(__func__, [&] { *library = load_library(image); });
}
CUresult cuLibraryUnload(CUlibrary) {
  return call(__func__, [] {});
}
CUresult cuLibraryGetKernel(CUkernel* kernel, CUlibrary library, const char* name) {
  return call(__func__, [&] { *kernel = kernel_of(*library, name); });
}
CUresult cuLibraryGetModule(CUmodule* module, CUlibrary library) {
  return call(__func__, [&] { *module = module_of(*library, require_context().device); });
}
CUresult cuLibraryGetGlobal(CUdeviceptr* address, size_t* bytes, CUlibrary library,
                            const char* name) {
  return call(__func__, [&] {
    const CUmod_st& module = *module_of(*library, require_context().device);
    write_global(global_of(module, name), address, bytes);
  });
}

// --- kernels of libraries
CUresult cuKernelGetFunction(CUfunction* function, CUkernel kernel) {
  return call(__func__, [&] {
    require_context();
    *function = &resolve(handle_of(kernel));
  });
}
CUresult cuKernelGetName(const char** name, CUkernel kernel) {
  return call(__func__, [&] { *name = kernel->name.c_str(); });
}
CUresult cuKernelGetAttribute(int* value, CUfunction_attribute which, CUkernel kernel, CUdevice) {
  return call(__func__, [&] { *value = attribute(resolve(handle_of(kernel)), which); });
}
CUresult cuKernelSetAttribute(CUfunction_attribute which, int value, CUkernel kernel, CUdevice) {
  return call(__func__, [&] { set_attribute(*kernel, which, value); });
}
CUresult cuKernelSetCacheConfig(CUkernel, CUfunc_cache, CUdevice) {
  return call(__func__, [] {});
}
CUresult cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t* offset, size_t* size) {
  return call(__func__, [&] { parameter(handle_of(kernel), index, offset, size); });
}

// --- functions
CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) {
  return call(__func__, [] {});
}
CUresult cuFuncGetName(const char** name, CUfunction function) {
  return call(__func__, [&] { *name = resolve(function).kernel->name.c_str(); });
}
CUresult cuFuncGetModule(CUmodule*, CUfunction) {
  return call(__func__, [] { fail(CUDA_ERROR_NOT_SUPPORTED); });
}
CUresult cuFuncLoad(CUfunction) {
  return call(__func__, [] {});
}
CUresult cuFuncIsLoaded(CUfunctionLoadingState* state, CUfunction) {
  return call(__func__, [&] { *state = CU_FUNCTION_LOADING_STATE_LOADED; });
}
CUresult cuFuncGetAttribute(int* value, CUfunction_attribute which, CUfunction function) {
  return call(__func__, [&] { *value = attribute(resolve(function), which); });
}
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value) {
  return call(__func__, [&] { set_attribute(resolve(function), which, value); });
}
CUresult cuFuncGetParamInfo(CUfunction function, size_t index, size_t* offset, size_t* size) {
  return call(__func__, [&] { parameter(function, index, offset, size); });
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, CUfunction handle,
                                                              int threads, size_t shared,
                                                              unsigned) {
  return call(__func__, [&] {
    const Function& function = resolve(handle);
    decode(function);
    const auto fixed = static_cast<size_t>(function.kernel->static_shared);
    *blocks = resident_blocks(threads, fixed + shared, registers_of(function.kernel->name));
  });
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int threads,
                                                     size_t shared) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, 0);
}

// --- launches
CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank,
                                void* address, const cuuint64_t* size, const cuuint64_t* stride,
                                const cuuint32_t* box, const cuuint32_t* step,
                                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  return call(__func__, [&] {
    require(
        interleave == CU_TENSOR_MAP_INTERLEAVE_NONE && fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        CUDA_ERROR_INVALID_VALUE, "tensor map: interleaving and filling with NaN are not here");
    encode_tiled(map, type, rank, address, size, stride, box, step, swizzle);
  });
}
CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                        CUstream stream, void** params, void** extra) {
  return call(__func__, [&] {
    launch(function, {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared}, stream,
           params, extra);
  });
}
CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                                   unsigned grid_z, unsigned block_x, unsigned block_y,
                                   unsigned block_z, unsigned shared, CUstream stream,
                                   void** params) {
  return cuLaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, stream,
                        params, nullptr);
}
CUresult cuLaunchKernelEx(const CUlaunchConfig* c, CUfunction function, void** params,
                          void** extra) {
  return call(__func__, [&] {
    LaunchShape shape{{c->gridDimX, c->gridDimY, c->gridDimZ},
                      {c->blockDimX, c->blockDimY, c->blockDimZ},
                      c->sharedMemBytes};
    for (unsigned i = 0; i < c->numAttrs; ++i) {
      const CUlaunchAttributeValue& value = c->attrs[i].value;
      if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
        shape.has_cluster = true;
        shape.cluster[0] = value.clusterDim.x;
        shape.cluster[1] = value.clusterDim.y;
        shape.cluster[2] = value.clusterDim.z;
      } else if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION) {
        shape.programmatic = value.programmaticStreamSerializationAllowed != 0;
      } else if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT) {
        fail(CUDA_ERROR_NOT_SUPPORTED, "launch: programmatic events are not implemented");
      }
    }
    launch(function, shape, c->hStream, params, extra);
  });
}

}  // extern "C"
