#include "vgpu/api/module.h"

#include <cxxabi.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "vgpu/api/context.h"
#include "vgpu/api/device.h"
#include "vgpu/api/register_table.h"

namespace vgpu {

namespace {

std::string text_of(const void* image) {
  std::string error, text = image_ptx(image, &error);
  if (!error.empty()) fail(CUDA_ERROR_NO_BINARY_FOR_GPU, "module: " + error);
  return text;
}

std::unique_ptr<CUmod_st> made_module(std::string text, int device) {
  std::string error;
  auto made = std::make_unique<CUmod_st>();
  made->module = ptx_module(std::move(text), device, &error);
  if (!error.empty()) fail(CUDA_ERROR_INVALID_PTX, "module: " + error);
  return made;
}

std::set<const void*>& kernel_handles() {
  static auto* const set = new std::set<const void*>;
  return *set;
}

}  // namespace

CUmodule load_module(const void* image) {
  const Context& context = require_context();
  return made_module(text_of(image), context.device).release();
}

CUmodule load_module_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  require(file.good(), CUDA_ERROR_FILE_NOT_FOUND, path);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return load_module(bytes.str().c_str());
}

CUlibrary load_library(const void* image) { return new CUlib_st{text_of(image), {}, {}}; }

CUmodule module_of(CUlib_st& library, int device) {
  std::unique_ptr<CUmod_st>& module = library.modules[device];
  if (!module) module = made_module(library.text, device);
  return module.get();
}

CUkernel kernel_of(CUlib_st& library, const std::string& name) {
  std::unique_ptr<CUkern_st>& kernel = library.kernels[name];
  if (!kernel) {
    kernel.reset(new CUkern_st{&library, name, {}});
    kernel_handles().insert(kernel.get());
  }
  return kernel.get();
}

Function& function_of(CUmod_st& module, const std::string& name) {
  std::unique_ptr<Function>& function = module.functions[name];
  if (!function) {
    const auto found = module.module->kernels.find(name);
    if (found == module.module->kernels.end()) {
      module.functions.erase(name);
      fail(CUDA_ERROR_NOT_FOUND, "the module has no kernel " + name);
    }
    function.reset(new Function{module.module, &found->second});
  }
  return *function;
}

Function& resolve(CUfunction handle) {
  require(handle != nullptr, CUDA_ERROR_INVALID_HANDLE);
  if (!kernel_handles().count(handle)) return *handle;
  const CUkern_st& kernel = *reinterpret_cast<CUkernel>(handle);
  const Context* const context = current_context();
  CUmodule const module = module_of(*kernel.library, context ? context->device : 0);
  Function& function = function_of(*module, kernel.name);
  for (const auto& [which, value] : kernel.attributes) set_attribute(function, which, value);
  return function;
}

const Global& global_of(const CUmod_st& module, const char* name) {
  const auto found = module.module->globals.find(name);
  require(found != module.module->globals.end(), CUDA_ERROR_NOT_FOUND);
  return found->second;
}

void decode(const Function& function) {
  std::string error;
  if (!ptx_decode(*function.module, *function.kernel, &error))
    fail(CUDA_ERROR_INVALID_PTX, function.kernel->name + ": " + error);
}

std::string readable_name(const Kernel& kernel) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(kernel.name.c_str(), nullptr, nullptr, &status), std::free);
  return status == 0 ? text.get() : kernel.name;
}

long shared_room(const Function& function) {
  return function.opted_in ? function.max_dynamic
                           : kSharedWithoutOptIn - function.kernel->static_shared;
}

int attribute(const Function& function, CUfunction_attribute attribute) {
  decode(function);
  const Kernel& kernel = *function.kernel;
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      return kernel.max_threads;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
      return kernel.static_shared;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
      return kernel.local_bytes;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      if (const int known = registers_of(kernel.name)) return known;
      return 32;  // of PTX nobody knows: ptxas decides
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
      return function.module->target;
    case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
      return 1;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      return static_cast<int>(shared_room(function));
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      return function.carveout;
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
      return function.non_portable_cluster;
    default:
      return 0;
  }
}

void set_attribute(Function& function, CUfunction_attribute attribute, int value) {
  decode(function);
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: {
      const int most = limits().shared_per_block - function.kernel->static_shared;
      if (value < 0 || value > most)
        fail(CUDA_ERROR_INVALID_VALUE, function.kernel->name + ": " + std::to_string(value) +
                                           " bytes of dynamic shared memory asked for, beside " +
                                           std::to_string(function.kernel->static_shared) +
                                           " static ones at most " + std::to_string(most) + " on " +
                                           capability_text());
      function.max_dynamic = value;
      function.opted_in = true;
      break;
    }
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      function.carveout = value;
      break;
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
      function.non_portable_cluster = value != 0;
      break;
    default:
      break;
  }
}

void set_attribute(CUkern_st& kernel, CUfunction_attribute attribute, int value) {
  Function& function = resolve(reinterpret_cast<CUfunction>(&kernel));
  set_attribute(function, attribute, value);
  kernel.attributes[attribute] = value;
}

}  // namespace vgpu
