// One instruction while it is decoded: its modifiers, of which every one must be asked for, and its
// operands, which are read in the order of the text.
#pragma once
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "vgpu/ptx/lexer.h"
#include "vgpu/ptx/names.h"

namespace vgpu::ptx {

class Statement {
 public:
  // Reads the guard and the opcode: @%p1 add.rn.f32
  Statement(Lexer& text, Names& names, Code& code);

  Ins ins;
  std::string_view mnemonic() const { return mnemonic_; }
  [[noreturn]] void fail(const std::string& what) const { text_.fail(what); }
  [[noreturn]] void fail_form() const;  // this form of the instruction is not known
  void need(bool known) const {
    if (!known) fail_form();
  }

  // --- modifiers
  bool has(std::string_view modifier);
  // The number of the one that is there, or -1.
  int one_of(std::initializer_list<std::string_view> modifiers);
  void skip(
      std::initializer_list<std::string_view> modifiers);  // may be there, and mean nothing here
  Type type();                                             // the next one that is a type
  Type type(std::initializer_list<Type> known);            // which must be one of these
  Round rounding(std::initializer_list<Round> known);      // Round::none where none is there
  std::string_view shape();                                // m16n8k8
  bool shared_space();                                     // .shared or .shared::cta

  // --- operands
  // A register, or a register that holds the immediate or the address of a variable.
  int operand(Type type);
  int next(Type type);  // after a comma
  // Reads a register that may be wider than the type, as those of ld, st and cvt.
  int wide_operand(Type type);
  std::uint64_t immediate();
  void address();                          // [%rd1+16] into ins.a, ins.imm, ins.width2
  int address_operand();                   // [%rd1+16] as the register that holds it
  int list(Type type, bool wide = false);  // {%f1, %f2} or %f1 to the instruction's list: how many
  void list_nothing();                     // the sink `_` to the list
  void repeat_list();                      // once more what the list has so far
  void list_width();  // ins.width: the bytes of the list's registers, all alike
  bool at_list() { return text_.peek() == '{'; }
  void comma() { text_.expect(','); }
  bool take(char c) { return text_.take(c); }
  void expect(char c) { text_.expect(c); }
  void branch_target();
  std::string_view word() { return text_.word(); }
  int lanes_bytes(int number) const { return lane_bytes(names_.register_class(number)); }
  int constant(std::uint64_t bits, RegClass c) { return names_.constant(bits, c); }
  bool is_predicate(int number) const { return names_.register_class(number) == RegClass::pred; }

  void finish();  // the semicolon; that all modifiers were asked for; appends the instruction

 private:
  struct Address {
    int base = -1;
    std::int64_t offset = 0;
    const Symbol* symbol = nullptr;
  };
  Address read_address();
  int negation();
  void emit(Ins i);
  void all_modifiers_read() const;

  Lexer& text_;
  Names& names_;
  Code& code_;
  int line_;
  std::string_view opcode_, mnemonic_;
  std::vector<std::string_view> modifiers_;  // not yet asked for
  bool dynamic_ = false;
};

}  // namespace vgpu::ptx
