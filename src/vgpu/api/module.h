// Modules and libraries, and the kernels and variables in them. Nothing is ever unloaded: work in
// flight may still name it.
#pragma once
#include <cuda.h>

#include <map>
#include <memory>
#include <string>

#include "vgpu/vgpu.h"

// A kernel in a module of one device.
struct CUfunc_st {
  std::shared_ptr<vgpu::PtxModule> module;
  vgpu::Kernel* kernel = nullptr;
  int max_dynamic = 0;  // bytes of shared memory, where it opted in
  bool opted_in = false;
  int carveout = -1;
  bool non_portable_cluster = false;
};

struct CUmod_st {
  std::shared_ptr<vgpu::PtxModule> module;
  std::map<std::string, std::unique_ptr<CUfunc_st>, std::less<>> functions;
};

// A library is loaded once and becomes a module on each device that uses it.
struct CUlib_st {
  std::string text;
  std::map<int, std::unique_ptr<CUmod_st>> modules;  // by device
  std::map<std::string, std::unique_ptr<CUkern_st>, std::less<>> kernels;
};

// A kernel of a library, the same on every device.
struct CUkern_st {
  CUlib_st* library;
  std::string name;
  std::map<CUfunction_attribute, int> attributes;
};

namespace vgpu {

using Function = CUfunc_st;

CUmodule load_module(const void* image);  // PTX text or a fatbin, for the current device
CUmodule load_module_file(const char* path);
CUlibrary load_library(const void* image);
CUmodule module_of(CUlib_st& library, int device);
CUkernel kernel_of(CUlib_st& library, const std::string& name);

Function& function_of(CUmod_st& module, const std::string& name);
// Programs pass a CUkernel where a CUfunction is asked for: the kernel of the current device then.
Function& resolve(CUfunction handle);
const Global& global_of(const CUmod_st& module, const char* name);

// Decodes the kernel, which tells its shared and local memory. Fails for PTX that is not
// understood.
void decode(const Function& function);
int attribute(const Function& function, CUfunction_attribute attribute);
void set_attribute(Function& function, CUfunction_attribute attribute, int value);
void set_attribute(CUkern_st& kernel, CUfunction_attribute attribute, int value);
std::string readable_name(const Kernel& kernel);  // void scale<float>(float*)
long shared_room(const Function& function);       // for dynamic shared memory, in bytes

}  // namespace vgpu
