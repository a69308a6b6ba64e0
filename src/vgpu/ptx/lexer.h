// PTX text, a token at a time, with the line that it is at.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "vgpu/ptx/instruction.h"

namespace vgpu::ptx {

// Text that is no PTX, or PTX that this virtual GPU does not know. what() begins with the line.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

bool is_word(char c);                 // of a name: letters, digits, _ $ %
bool is_digit(char c);                // 0 to 9
Type type_of(std::string_view name);  // "u32" -> Type::u32; Type::none for other words

class Lexer {
 public:
  explicit Lexer(std::string_view text, int line = 1) : text_(text), line_(line) {}

  char peek();          // the next character that is not blank, '\0' at the end
  bool take(char c);    // consumes it if it is next
  void expect(char c);  // consumes it, or fails
  bool at_number();     // a digit or a sign is next
  bool starts(std::string_view s);
  // A name; its characters are those of is_word() and those of `also`. May be empty.
  std::string_view word(std::string_view also = {});
  std::string_view string();  // between double quotes
  int integer();              // a decimal number without a type, as in directives
  // A literal as the bits of `type`: 12, -1, 0x1f, 0f3f800000, 0d3ff0000000000000; of a predicate,
  // all ones for any but zero.
  std::uint64_t number(Type type);
  std::string_view until(char end);  // the text before `end`, which is consumed
  std::string_view braces();         // the text between { and its }, both consumed
  bool ends_line();                  // nothing but blanks up to the end of the line

  std::size_t at() const { return at_; }
  int line() const { return line_; }
  [[noreturn]] void fail(const std::string& what) const;

 private:
  void skip_blanks();
  std::string_view advance(std::size_t to);  // consumes up to there, counting lines

  std::string_view text_;
  std::size_t at_ = 0;
  int line_;
};

}  // namespace vgpu::ptx
