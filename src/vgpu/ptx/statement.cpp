#include "vgpu/ptx/statement.h"

#include <algorithm>

namespace vgpu::ptx {

Statement::Statement(Lexer& text, Names& names, Code& code)
    : text_(text), names_(names), code_(code) {
  if (text_.take('@')) {
    ins.negated = text_.take('!');
    const std::string_view guard = text_.word();
    ins.pred = names_.find_register(guard);
    if (ins.pred < 0 || !is_predicate(ins.pred)) fail("no predicate: " + std::string(guard));
  }
  opcode_ = text_.word(".:");
  line_ = text_.line();
  for (std::size_t from = 0; from <= opcode_.size();) {
    const std::size_t to = std::min(opcode_.find('.', from), opcode_.size());
    modifiers_.push_back(opcode_.substr(from, to - from));
    from = to + 1;
  }
  mnemonic_ = modifiers_.front();
  modifiers_.erase(modifiers_.begin());
  ins.ftz = has("ftz");
}

void Statement::fail_form() const {
  fail("the instruction " + std::string(opcode_) + " is not known in this form");
}

bool Statement::has(std::string_view modifier) {
  const auto it = std::find(modifiers_.begin(), modifiers_.end(), modifier);
  if (it == modifiers_.end()) return false;
  modifiers_.erase(it);
  return true;
}

int Statement::one_of(std::initializer_list<std::string_view> modifiers) {
  int k = 0;
  for (const std::string_view m : modifiers) {
    if (has(m)) return k;
    ++k;
  }
  return -1;
}

void Statement::skip(std::initializer_list<std::string_view> modifiers) {
  for (const std::string_view m : modifiers) has(m);
}

Type Statement::type() {
  for (std::size_t k = 0; k < modifiers_.size(); ++k)
    if (const Type t = type_of(modifiers_[k]); t != Type::none) {
      modifiers_.erase(modifiers_.begin() + static_cast<std::ptrdiff_t>(k));
      return t;
    }
  fail_form();
}

Type Statement::type(std::initializer_list<Type> known) {
  const Type t = type();
  need(std::find(known.begin(), known.end(), t) != known.end());
  return t;
}

Round Statement::rounding(std::initializer_list<Round> known) {
  constexpr Round rounds[] = {Round::rn,  Round::rz,  Round::rm,  Round::rp, Round::rni,
                              Round::rzi, Round::rmi, Round::rpi, Round::rna};
  const int which = one_of({"rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "rna"});
  if (which < 0) return Round::none;
  need(std::find(known.begin(), known.end(), rounds[which]) != known.end());
  return rounds[which];
}

std::string_view Statement::shape() {
  for (std::size_t k = 0; k < modifiers_.size(); ++k)
    if (const std::string_view m = modifiers_[k]; m.size() > 2 && m[0] == 'm' && is_digit(m[1])) {
      modifiers_.erase(modifiers_.begin() + static_cast<std::ptrdiff_t>(k));
      return m;
    }
  fail_form();
}

bool Statement::shared_space() { return one_of({"shared", "shared::cta"}) >= 0; }

// !%p1: a predicate of its own, as the interpreter knows no negated operands.
int Statement::negation() {
  Ins i;
  i.op = Op::not_, i.type = Type::pred;
  i.a = operand(Type::pred);
  i.d = names_.make_register(RegClass::pred);
  emit(i);
  return i.d;
}

int Statement::operand(Type type) {
  const int number = wide_operand(type);
  if (number >= 0 && names_.register_class(number) != class_of(type))
    fail("a register of another size or kind than " + std::string(opcode_) + " takes");
  return number;
}

void Statement::all_modifiers_read() const { need(modifiers_.empty()); }

int Statement::wide_operand(Type type) {
  all_modifiers_read();
  if (text_.at_number()) return names_.constant(text_.number(type), class_of(type));
  if (text_.take('!')) return negation();
  const std::string_view name = text_.word(".");
  if (name == "_") return -1;
  if (const int number = names_.find_register(name); number >= 0) return number;
  if (const int number = names_.special(name); number >= 0) return number;
  if (const Symbol* s = names_.find_symbol(name)) {
    const std::int64_t offset =
        text_.take('+') ? static_cast<std::int64_t>(text_.number(Type::s64)) : 0;
    return names_.address_of(*s, offset, class_of(type));
  }
  fail("unknown operand \"" + std::string(name) + '"');
}

int Statement::next(Type type) {
  comma();
  const int number = operand(type);
  if (number < 0) fail("_ cannot be read");
  return number;
}

std::uint64_t Statement::immediate() {
  all_modifiers_read();
  if (!text_.at_number()) fail("expected an immediate");
  return text_.number(Type::s64);
}

Statement::Address Statement::read_address() {
  all_modifiers_read();
  Address a;
  text_.expect('[');
  if (text_.at_number()) {
    a.offset = static_cast<std::int64_t>(text_.number(Type::u64));
  } else {
    const std::string_view name = text_.word(".");
    a.symbol = names_.find_symbol(name);
    a.base = a.symbol ? -1 : names_.find_register(name);
    if (!a.symbol && a.base < 0) fail("unknown address \"" + std::string(name) + '"');
  }
  if (text_.take('+')) a.offset += static_cast<std::int64_t>(text_.number(Type::s64));
  return a;
}

void Statement::address() {
  const Address a = read_address();
  text_.expect(']');
  ins.a = a.base;
  ins.imm = a.offset;
  ins.width2 = a.base < 0 ? 8 : static_cast<std::uint8_t>(lanes_bytes(a.base));
  if (a.symbol && a.symbol->dynamic)
    dynamic_ = true;
  else if (a.symbol)
    ins.imm += a.symbol->address;
  if (a.symbol && a.symbol->space == Space::local && ins.space == Space::param)
    ins.space = Space::local;
}

int Statement::address_operand() {
  const Address a = read_address();
  text_.expect(']');
  if (a.symbol) return names_.address_of(*a.symbol, a.offset, RegClass::b32);
  if (a.base < 0) return names_.constant(a.offset, RegClass::b32);
  if (a.offset == 0) return a.base;
  const RegClass c = names_.register_class(a.base);
  Ins sum;
  sum.op = Op::add, sum.type = c == RegClass::b64 ? Type::u64 : Type::u32;
  sum.a = a.base, sum.d = names_.make_register(c), sum.b = names_.constant(a.offset, c);
  emit(sum);
  return sum.d;
}

int Statement::list(Type type, bool wide) {
  if (ins.list < 0) ins.list = static_cast<int>(code_.lists.size());
  std::vector<int> numbers;
  const auto read = [&] { numbers.push_back(wide ? wide_operand(type) : operand(type)); };
  if (text_.take('{')) {
    do read();
    while (text_.take(','));
    text_.expect('}');
  } else {
    read();
  }
  code_.lists.insert(code_.lists.end(), numbers.begin(), numbers.end());
  const int count = static_cast<int>(numbers.size());
  ins.list_count += count;
  return count;
}

void Statement::list_nothing() {
  code_.lists.push_back(-1);
  ++ins.list_count;
}

void Statement::repeat_list() {
  for (int k = 0, n = ins.list_count; k < n; ++k) code_.lists.push_back(code_.lists[ins.list + k]);
  ins.list_count *= 2;
}

void Statement::list_width() {
  int width = 0;
  for (int k = 0; k < ins.list_count; ++k) {
    const int number = code_.lists[ins.list + k];
    if (number < 0) continue;
    const int bytes = lanes_bytes(number);
    if (width && bytes != width) fail("registers of different sizes in a list");
    if (bytes < size_of(ins.type)) fail("a register that is smaller than the access");
    width = bytes;
  }
  ins.width = static_cast<std::uint8_t>(width ? width : size_of(ins.type));
}

void Statement::branch_target() { names_.branch(text_.word(), static_cast<int>(code_.ins.size())); }

void Statement::emit(Ins i) {
  i.loc = static_cast<int>(code_.locations.size()) - 1;
  i.line = line_;
  code_.ins.push_back(i);
}

void Statement::finish() {
  need(!ins.ftz || ins.type == Type::f32 || ins.type2 == Type::f32);
  all_modifiers_read();
  text_.expect(';');
  if (dynamic_) names_.immediate_is_dynamic(static_cast<int>(code_.ins.size()));
  emit(ins);
}

}  // namespace vgpu::ptx
