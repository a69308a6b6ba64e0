// The host's own accesses to device memory, which it must not make.
#pragma once

namespace vgpu {

// From now on a process that dies of SIGSEGV because the host touched device memory says so, with
// the allocation. Whoever handled the signal before is asked after that; who handles it from then
// on decides whether this one still is.
void explain_host_accesses();

}  // namespace vgpu
