// What operations between devices share.
#pragma once

#include "device/launch.h"

namespace convnet {

// Lets kernels on the current device touch the memory of `device`.
inline void open_way(OpName op, int device) {
  int current = 0;
  check_cuda(cudaGetDevice(&current), "cudaGetDevice", op);
  if (current == device) return;
  const cudaError_t error = cudaDeviceEnablePeerAccess(device, 0);
  if (error == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();  // else the launch would report it
    return;
  }
  check_cuda(error, "access from one device to another", op);
}

}  // namespace convnet
