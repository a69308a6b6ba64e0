// Turns SIGSEGV, SIGBUS and SIGFPE inside a kernel into an error of the launch.
//
// The handler cannot unwind a kernel's frames. It notes the fault and makes the interrupted fiber
// go on in fault_landed(), on a small stack of its own (the fiber's may be what overflowed), which
// leaves the fiber for good. Faults elsewhere go to whoever handled them before.
#include "fault.h"

#include <dlfcn.h>
#include <signal.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <string>

#include "memory.h"

namespace convnet::emulator {

namespace {

// A copy of the text that lives as long as the process.
const char* keep(const std::string& text) {
  static std::mutex* mutex = new std::mutex;
  static auto* kept = new std::set<std::string>;
  const std::lock_guard<std::mutex> lock(*mutex);
  return kept->insert(text).first->c_str();
}

}  // namespace

SourceLine source_line(std::uintptr_t code) {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(code), &info) == 0 || info.dli_fname == nullptr) {
    return {"unknown code", 0};
  }
  // Executables at a fixed address are looked up by address, all else by offset.
  std::uintptr_t offset = code - reinterpret_cast<std::uintptr_t>(info.dli_fbase);
  const bool fixed = reinterpret_cast<std::uintptr_t>(info.dli_fbase) == 0x400000;
  if (fixed) offset = code;
  char command[1024];
  std::snprintf(command, sizeof command, "addr2line -e '%s' 0x%zx 2>/dev/null", info.dli_fname,
                static_cast<std::size_t>(offset));
  char answer[512] = "";
  if (FILE* pipe = popen(command, "r")) {
    if (std::fgets(answer, sizeof answer, pipe) == nullptr) answer[0] = 0;
    pclose(pipe);
  }
  if (char* colon = std::strrchr(answer, ':'); colon != nullptr && answer[0] != '?') {
    *colon = 0;
    return {keep(answer), std::atoi(colon + 1)};
  }
  std::snprintf(answer, sizeof answer, "%s+0x%zx (compile with -g for the line)", info.dli_fname,
                static_cast<std::size_t>(offset));
  return {keep(answer), 0};
}

namespace {

struct Fault {
  int signal;
  std::uintptr_t address, code, stack_pointer;
};

__thread Fault fault;
__thread char* landing_stack = nullptr;

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE};
struct sigaction previous_handlers[3];

// What to say about the fault.
void describe(const Thread& self, char* message, std::size_t bytes) {
  const auto stack = reinterpret_cast<std::uintptr_t>(self.fiber.stack);
  if (fault.signal == SIGFPE) {
    std::snprintf(message, bytes, "integer division by zero");
  } else if (fault.stack_pointer < stack + page_bytes()) {
    std::snprintf(message, bytes, "stack overflow: more than %zu bytes of local variables",
                  kStackBytes);
  } else {
    const std::string wrong = global_access_error(self.block->launch->device, fault.address);
    std::snprintf(message, bytes, "invalid memory access at address %p%s%s",
                  reinterpret_cast<void*>(fault.address), wrong.empty() ? "" : ": ", wrong.c_str());
  }
}

void fault_landed() {
  const SourceLine line = source_line(fault.code);
  char message[256];
  describe(*current, message, sizeof message);
  fail(CallSite{line.file, line.line}, "%s", message);
}

void call_previous(int signal, siginfo_t* info, void* context) {
  for (int i = 0; i < 3; ++i) {
    if (kSignals[i] != signal) continue;
    const struct sigaction& previous = previous_handlers[i];
    if ((previous.sa_flags & SA_SIGINFO) != 0 && previous.sa_sigaction != nullptr) {
      previous.sa_sigaction(signal, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
      previous.sa_handler(signal);
    } else {
      sigaction(signal, &previous, nullptr);  // the access is repeated, and ends the process
    }
  }
}

void handle(int signal, siginfo_t* info, void* context) {
  auto* state = static_cast<ucontext_t*>(context);
  [[maybe_unused]] auto& registers = state->uc_mcontext;
  if (current == nullptr || landing_stack == nullptr) {
    call_previous(signal, info, context);
    return;
  }
  const std::uintptr_t top = reinterpret_cast<std::uintptr_t>(landing_stack) + kStackBytes;
  const auto landing = reinterpret_cast<std::uintptr_t>(&fault_landed);
  fault.signal = signal;
  fault.address = reinterpret_cast<std::uintptr_t>(info->si_addr);
#if defined(__x86_64__)
  fault.code = static_cast<std::uintptr_t>(registers.gregs[REG_RIP]);
  fault.stack_pointer = static_cast<std::uintptr_t>(registers.gregs[REG_RSP]);
  registers.gregs[REG_RIP] = static_cast<greg_t>(landing);
  registers.gregs[REG_RSP] = static_cast<greg_t>(top - 8);
#elif defined(__aarch64__)
  fault.code = registers.pc;
  fault.stack_pointer = registers.sp;
  registers.pc = landing;
  registers.sp = top;
#else
  (void)top, (void)landing;
  call_previous(signal, info, context);
#endif
}

}  // namespace

void install_fault_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action{};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &action, &previous_handlers[i]);
  });
}

void set_landing_stack(char* stack) { landing_stack = stack; }

}  // namespace convnet::emulator
