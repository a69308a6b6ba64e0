#include "vgpu/ptx/variable.h"

#include <algorithm>

namespace vgpu::ptx {
namespace {

// .ptr .global .align 4 of a parameter: what it points to; nothing about the parameter itself.
void skip_pointee(Lexer& text) {
  while (text.take('.'))
    if (text.word() == "align") text.integer();
}

}  // namespace

Variable read_variable(Lexer& text) {
  Variable v;
  int vector = 1;
  while (text.take('.')) {
    const std::string_view word = text.word();
    if (word == "align")
      v.align = text.integer();
    else if (word == "ptr")
      skip_pointee(text);
    else if (word == "v2" || word == "v4")
      vector = word[1] - '0';
    else if (v.type = type_of(word); v.type == Type::none)
      text.fail("a variable of type ." + std::string(word));
  }
  v.name = text.word();
  if (v.type == Type::none || v.name.empty()) text.fail("expected a variable");
  v.align = std::max(v.align, vector * size_of(v.type));
  v.bytes = vector * size_of(v.type);
  while (text.take('[')) {
    v.bytes *= text.peek() == ']' ? 0 : static_cast<long>(text.number(Type::u64));
    text.expect(']');
  }
  return v;
}

}  // namespace vgpu::ptx
