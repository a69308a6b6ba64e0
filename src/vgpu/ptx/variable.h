// A declaration of a variable: .align 16 .b8 name[16896] = {...}
#pragma once
#include <string_view>

#include "vgpu/ptx/lexer.h"

namespace vgpu::ptx {

struct Variable {
  std::string_view name;
  Type type = Type::none;
  long bytes = 0;
  int align = 1;
};

// Reads what follows the state space (.param, .global, .shared, ...), up to the initialiser or to
// what separates declarations.
Variable read_variable(Lexer& text);

inline long round_up(long value, long to) { return (value + to - 1) / to * to; }

}  // namespace vgpu::ptx
