// Launches of kernels and what a device refuses.
#pragma once
#include <cuda.h>

namespace vgpu {

struct LaunchShape {
  unsigned grid[3], block[3];
  unsigned shared = 0;  // bytes, dynamic
  bool has_cluster = false;
  unsigned cluster[3] = {1, 1, 1};  // blocks
  bool programmatic = false;        // may begin before the kernel before it in its stream has ended
};

// Queues a launch, or fails with the kernel, what was asked for and the limit. The arguments are
// given one by one (params) or as one buffer (extra), as cuLaunchKernel takes them.
void launch(CUfunction kernel, LaunchShape shape, CUstream stream, void** params, void** extra);

}  // namespace vgpu
