// What the emulator backend is and what it runs on: the host.
#include <cstdlib>
#include <string>

#include "device.h"
#include "ops.h"

namespace convnet {

void start_backend() {}

const char* backend_name() { return "emulator"; }

Memory backend_memory() { return Memory::kHost; }

void grant_memory(const std::vector<MemoryRange>&) {}

void revoke_memory(const char*) {}

int device_count() { return emulator::device_count(); }

// Arrays are NumPy's, which all logical devices share.
int current_device() { return 0; }

void set_current_device(int) {}

int memory_device(const void*) { return 0; }

void wait_for_stream(const char*, Stream, Stream) {}

std::string device_description(int) {
  const int threads = thread_count();
  return "CUDA kernels emulated on the CPU, " + std::to_string(threads) +
         (threads == 1 ? " thread" : " threads");
}

std::string build_description() { return "GCC " __VERSION__; }

int thread_count() { return emulator::worker_count(); }

void set_thread_count(int threads) {
  constexpr int kMost = 16;
  if (threads < 1 || threads > kMost) {
    fail("set_thread_count", "threads", "1 to " + std::to_string(kMost), std::to_string(threads));
  }
  setenv("CONVNET_EMULATOR_THREADS", std::to_string(threads).c_str(), 1);
}

}  // namespace convnet
