// Fibers: stacks of their own that take turns on one OS thread.
//
// A switch saves the stack pointer, the frame pointer and the address to go on at, and loads those
// of the other fiber; every other register is declared destroyed, so that the compiler saves what
// it needs. It is inline and jumps instead of returning, because all threads of a block run the
// same code: the processor's return predictor then stays right across a switch (2-3 ns each).
// Other processors than x86-64 and AArch64 use ucontext, which costs a system call a switch.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define CONVNET_EMULATOR_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// May be defined to try the fallback on any processor.
#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(CONVNET_EMULATOR_UCONTEXT)
#define CONVNET_EMULATOR_UCONTEXT 1
#endif
#if defined(CONVNET_EMULATOR_UCONTEXT)
#include <ucontext.h>
#endif

#if defined(__AVX512F__)
#define CONVNET_EMULATOR_MORE_REGISTERS                                                         \
  "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",     \
      "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", \
      "k7",
#else
#define CONVNET_EMULATOR_MORE_REGISTERS
#endif

namespace convnet::emulator {

// Usable bytes of a fiber's stack. The page below it is protected, so an overflow faults.
constexpr std::size_t kStackBytes = 128 * 1024;

struct Fiber {
#if defined(CONVNET_EMULATOR_UCONTEXT)
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
  void* frame_pointer = nullptr;
  void* resume_at = nullptr;
#endif
  char* stack = nullptr;  // lowest usable address; null for the host's own stack
#if defined(CONVNET_EMULATOR_ASAN)
  const void* asan_stack = nullptr;
  std::size_t asan_stack_bytes = 0;
  void* asan_fake_stack = nullptr;
#endif
};

std::size_t page_bytes();

// Maps a stack with its guard page. Throws std::bad_alloc.
char* map_stack();
void unmap_stack(char* stack);

// Makes `fiber` start in `entry` on `stack` when it is next switched to. `entry` never returns.
// `colour` moves the top of the stack, so that many stacks do not share the same cache lines.
void prepare_fiber(Fiber* fiber, char* stack, unsigned colour, void (*entry)());

// To be called first in a fiber's entry: tells AddressSanitizer where we came from.
inline void fiber_entered([[maybe_unused]] Fiber* host) {
#if defined(CONVNET_EMULATOR_ASAN)
  const void* previous_stack = nullptr;
  std::size_t previous_bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &previous_stack, &previous_bytes);
  if (host->asan_stack != nullptr) return;  // we came from another fiber
  host->asan_stack = previous_stack;
  host->asan_stack_bytes = previous_bytes;
#endif
}

// Leaves `from` and goes on in `to`. With `last`, `from` will never be resumed.
inline void switch_fiber(Fiber* from, Fiber* to, [[maybe_unused]] bool last = false) {
  [[maybe_unused]] Fiber* const self = from;  // the asm changes `from`
#if defined(CONVNET_EMULATOR_ASAN)
  __sanitizer_start_switch_fiber(last ? nullptr : &from->asan_fake_stack, to->asan_stack,
                                 to->asan_stack_bytes);
#endif
#if defined(CONVNET_EMULATOR_UCONTEXT)
  swapcontext(&from->context, &to->context);
#elif defined(__x86_64__)
  asm volatile(
      "movq %%rsp, 0(%%rdi)\n\t"
      "movq %%rbp, 8(%%rdi)\n\t"
      "leaq 1f(%%rip), %%rax\n\t"
      "movq %%rax, 16(%%rdi)\n\t"
      "movq 0(%%rsi), %%rsp\n\t"
      "movq 8(%%rsi), %%rbp\n\t"
      "jmpq *16(%%rsi)\n"
      "1:\n\t"
      : "+D"(from), "+S"(to)
      :
      : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
        "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
        "xmm12", "xmm13", "xmm14", "xmm15", CONVNET_EMULATOR_MORE_REGISTERS "memory", "cc");
#elif defined(__aarch64__)
  register Fiber* x0 asm("x0") = from;
  register Fiber* x1 asm("x1") = to;
  asm volatile(
      "mov x9, sp\n\t"
      "str x9, [x0, #0]\n\t"
      "str x29, [x0, #8]\n\t"
      "adr x9, 1f\n\t"
      "str x9, [x0, #16]\n\t"
      "ldr x9, [x1, #0]\n\t"
      "ldr x29, [x1, #8]\n\t"
      "ldr x16, [x1, #16]\n\t"
      "mov sp, x9\n\t"
      "br x16\n"
      "1: hint #36\n\t"  // a landing pad, where branch targets are enforced
      : "+r"(x0), "+r"(x1)
      :
      : "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
        "x16", "x17", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30",
        "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13",
        "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26",
        "v27", "v28", "v29", "v30", "v31", "memory", "cc");
#endif
#if defined(CONVNET_EMULATOR_ASAN)
  __sanitizer_finish_switch_fiber(self->asan_fake_stack, nullptr, nullptr);
#endif
}

}  // namespace convnet::emulator
