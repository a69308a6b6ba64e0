#include "vgpu/api/call.h"

#include <cstdio>

#include "vgpu/settings.h"

namespace vgpu {

std::mutex& api_mutex() {
  static auto* const mutex = new std::mutex;  // never destroyed: programs free things at exit
  return *mutex;
}

void log_call(const char* name) {
  if (log_level() > 0) std::fprintf(stderr, "vgpu: %s\n", name);
}

void note_message(const std::string& text) { std::fprintf(stderr, "vgpu: %s\n", text.c_str()); }

CUresult report(const char* name, const Failure& failure) {
  if (!failure.text.empty()) note_message(failure.text);
  if (log_level() > 0) std::fprintf(stderr, "vgpu: %s returns %d\n", name, failure.code);
  return failure.code;
}

}  // namespace vgpu
