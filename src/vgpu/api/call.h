// What surrounds every function of the driver API: log, lock, and failures turned into codes.
#pragma once
#include <mutex>

#include "vgpu/api/failure.h"

namespace vgpu {

// Held by every call of the driver API, except while a task runs (Scheduler).
std::mutex& api_mutex();

void log_call(const char* name);
// Prints the text of a failure that the program would otherwise see as a number only.
CUresult report(const char* name, const Failure& failure);

void note_message(const std::string& text);  // prints it

template <typename F>
CUresult call(const char* name, F&& body) {
  log_call(name);
  const std::lock_guard lock(api_mutex());
  try {
    body();
  } catch (const Failure& failure) {
    return report(name, failure);
  }
  return CUDA_SUCCESS;
}

}  // namespace vgpu
