// cuGetProcAddress. Undocumented tables (cuGetExportTable) are not answered, on purpose: see
// README.md.
#include <cuda.h>

#include <cstdio>
#include <cstring>

#include "vgpu.h"

namespace vgpu {
int log_level();
}  // namespace vgpu
using namespace vgpu;

#undef cuGetProcAddress
#undef cuGetProcAddress_v2
struct Row {
  const char* base;
  int version;
  void* address;
};
extern "C" const Row vgpu_rows[];  // names.c, generated

extern "C" CUresult cuGetProcAddress_v2(const char* name, void** f, int version, cuuint64_t flags,
                                        CUdriverProcAddressQueryResult* status) {
  *f = nullptr;
  const Row* best = nullptr;
  bool known = false;
  for (const Row* row = vgpu_rows; row->base; ++row) {
    if (std::strcmp(row->base, name) != 0) continue;
    known = true;
    if (row->version <= version && (!best || row->version > best->version)) best = row;
  }
  if (best) *f = best->address;
  if (status)
    *status = best    ? CU_GET_PROC_ADDRESS_SUCCESS
              : known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                      : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  if (log_level() > 2 || (!best && log_level() > 0))
    fprintf(stderr, "vgpu: cuGetProcAddress %s %d %llu -> %p\n", name, version,
            (unsigned long long)flags, *f);
  return best ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
extern "C" CUresult cuGetProcAddress(const char* name, void** f, int version, cuuint64_t flags) {
  return cuGetProcAddress_v2(name, f, version, flags, nullptr);
}

extern "C" CUresult cuGetExportTable(const void** table, const CUuuid*) {
  *table = nullptr;
  return CUDA_ERROR_NOT_FOUND;
}
