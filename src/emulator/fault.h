// Memory faults inside kernels, and where in the source an address of code lies.
#pragma once

#include <cstdint>

namespace convnet::emulator {

struct SourceLine {
  const char* file;  // kept for the life of the process
  int line;
};

// Asks addr2line, so the code must have been compiled with -g; else names the module and offset.
SourceLine source_line(std::uintptr_t code);

}  // namespace convnet::emulator
