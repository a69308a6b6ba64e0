// Contexts: one a device, the primary one; and which is current in a thread.
#pragma once
#include <cuda.h>

#include <set>
#include <string>

#include "vgpu/api/failure.h"
#include "vgpu/api/scheduler.h"

struct CUctx_st {
  int device = 0;
  bool active = false;
  unsigned flags = 0;
  std::set<int> peers;            // devices whose memory this one's kernels may touch
  CUresult error = CUDA_SUCCESS;  // of a kernel or copy that failed when it ran
  std::string error_text;
  vgpu::TaskRef legacy;       // what the legacy stream did last
  int blocking_captures = 0;  // streams under capture that the legacy stream waits for

  unsigned reachable() const;  // a bit for each device whose memory kernels may touch
};

namespace vgpu {

Context* primary_context(int device);
Context* current_context();  // null where none is
void set_current_context(Context* context);
void push_context(Context* context);
Context* pop_context();

// The current context. Fails where there is none, and with the error of a context where something
// failed: for good, as on a GPU, unless VGPU_STICKY=0, where it is said once.
Context& require_context();
void throw_error(Context& context);

}  // namespace vgpu
