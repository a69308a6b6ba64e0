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

// Turns memory faults of kernels into errors of the launch, from now on.
void install_fault_handler();

// A stack for the faults of this OS thread, from map_stack(); null ends it.
void set_landing_stack(char* stack);

}  // namespace convnet::emulator
