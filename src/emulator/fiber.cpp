#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

namespace convnet::emulator {

std::size_t page_bytes() {
  static const std::size_t bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

char* map_stack() {
  const std::size_t guard = page_bytes();
  void* base = mmap(nullptr, guard + kStackBytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) throw std::bad_alloc();
  mprotect(base, guard, PROT_NONE);
  return static_cast<char*>(base) + guard;
}

void unmap_stack(char* stack) {
  const std::size_t guard = page_bytes();
  munmap(stack - guard, guard + kStackBytes);
}

void prepare_fiber(Fiber* fiber, char* stack, unsigned colour, void (*entry)()) {
#if defined(CONVNET_EMULATOR_ASAN)
  // A fiber that was abandoned leaves its frames poisoned.
  __asan_unpoison_memory_region(stack, kStackBytes);
  fiber->asan_stack = stack;
  fiber->asan_stack_bytes = kStackBytes;
  fiber->asan_fake_stack = nullptr;
#endif
  const std::size_t usable = kStackBytes - (colour % 32) * 64;
  fiber->stack = stack;
#if defined(CONVNET_EMULATOR_UCONTEXT)
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = stack;
  fiber->context.uc_stack.ss_size = usable;
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, entry, 0);
#else
  char* top = stack + usable;
#if defined(__x86_64__)
  // As after a call: the return address (none) lies on top, below an aligned frame.
  top -= 16;
  *reinterpret_cast<void**>(top + 8) = nullptr;
  top += 8;
#endif
  fiber->stack_pointer = top;
  fiber->frame_pointer = nullptr;
  fiber->resume_at = reinterpret_cast<void*>(entry);
#endif
}

}  // namespace convnet::emulator
