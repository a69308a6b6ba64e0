#include "vgpu/host_access.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>

#include "vgpu/memory.h"

namespace vgpu {

namespace {

struct sigaction previous;

// Not all that is called here is safe in a signal handler, but the process is about to end.
void on_fault(int signal, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<std::uint64_t>(info->si_addr);
  if (memory_is_device(address)) {
    const Allocation* const a = memory_find(address);
    char text[200];
    const int size =
        a ? std::snprintf(text, sizeof text,
                          "vgpu: the host touches device memory at %#llx, %llu bytes into an "
                          "allocation of %llu bytes on device %d\n",
                          static_cast<unsigned long long>(address),
                          static_cast<unsigned long long>(address - a->base),
                          static_cast<unsigned long long>(a->size), a->device)
          : std::snprintf(text, sizeof text,
                          "vgpu: the host touches device memory at %#llx, in no allocation\n",
                          static_cast<unsigned long long>(address));
    if (write(STDERR_FILENO, text, static_cast<std::size_t>(size)) < 0) _exit(1);
  }
  // Once more, with whoever handled the signal before.
  sigaction(signal, &previous, nullptr);
}

}  // namespace

void explain_host_accesses() {
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGSEGV, &action, &previous);
}

}  // namespace vgpu
