// What surrounds every function of the runtime API: a device that is current from the first call
// on, and the last error.
//
// The runtime API is written over the driver API, by its public names. It takes the place of
// NVIDIA's, static or shared, which starts only over a driver that proves to be NVIDIA's own.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

namespace vgpu::runtime {

cudaError_t note(CUresult result);  // remembers an error for cudaGetLastError
CUresult ready();                   // starts the driver, makes a context current
CUresult use(int device);           // makes the device's primary context current
CUresult kernel_of(const void* host, CUkernel* kernel);  // of a host function or a cudaKernel_t
int chosen_device();                                     // by cudaSetDevice in this thread

inline CUdeviceptr at(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

// A function of the API that needs a device.
template <typename F>
cudaError_t run(F&& body) {
  const CUresult started = ready();
  return note(started == CUDA_SUCCESS ? body() : started);
}

}  // namespace vgpu::runtime
