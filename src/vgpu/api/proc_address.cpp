// cuGetProcAddress. The undocumented tables of cuGetExportTable are not answered, on purpose: with
// one of them NVIDIA's runtime library makes a driver prove that it is NVIDIA's, and the toolkit's
// licence forbids to get around that. Programs are linked with the runtime library here instead.
#include <cuda.h>

#include <cstdio>
#include <cstring>

#include "vgpu/api/call.h"
#include "vgpu/settings.h"

#undef cuGetProcAddress

using namespace vgpu;

namespace {

struct Row {
  const char* base;  // the name without a version
  int version;       // of CUDA, in which the function got its present form
  void* address;
};

// What a program finds that has the virtual GPU within itself: the functions that the runtime API
// lacks.
const Row kOwn[] = {
    {"cuTensorMapEncodeTiled", 12000, reinterpret_cast<void*>(cuTensorMapEncodeTiled)},
    {nullptr, 0, nullptr},
};

}  // namespace

// In libcuda.so.1: every function of cuda.h, generated (gen_stubs.py).
extern "C" __attribute__((weak)) const Row vgpu_rows[];

extern "C" CUresult cuGetProcAddress_v2(const char* name, void** function, int version, cuuint64_t,
                                        CUdriverProcAddressQueryResult* status) {
  const Row* best = nullptr;
  bool known = false;
  for (const Row* row = vgpu_rows ? vgpu_rows : kOwn; row->base; ++row) {
    if (std::strcmp(row->base, name) != 0) continue;
    known = true;
    if (row->version <= version && (!best || row->version > best->version)) best = row;
  }
  *function = best ? best->address : nullptr;
  if (status)
    *status = best    ? CU_GET_PROC_ADDRESS_SUCCESS
              : known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                      : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  if (log_level() > 2 || (!best && log_level() > 0))
    std::fprintf(stderr, "vgpu: cuGetProcAddress %s %d -> %p\n", name, version, *function);
  return best ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

extern "C" CUresult cuGetProcAddress(const char* name, void** function, int version,
                                     cuuint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}

extern "C" CUresult cuGetExportTable(const void** table, const CUuuid*) {
  *table = nullptr;
  return CUDA_ERROR_NOT_FOUND;
}
