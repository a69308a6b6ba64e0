#include "vgpu/ptx/lexer.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <charconv>
#include <unordered_map>

namespace vgpu::ptx {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%';
}

Type type_of(std::string_view name) {
  static const std::unordered_map<std::string_view, Type> types = {
      {"pred", Type::pred}, {"b8", Type::b8},   {"u8", Type::u8},   {"s8", Type::s8},
      {"b16", Type::b16},   {"u16", Type::u16}, {"s16", Type::s16}, {"f16", Type::f16},
      {"b32", Type::b32},   {"u32", Type::u32}, {"s32", Type::s32}, {"f32", Type::f32},
      {"b64", Type::b64},   {"u64", Type::u64}, {"s64", Type::s64}, {"f64", Type::f64},
      {"bf16", Type::bf16}};
  const auto it = types.find(name);
  return it == types.end() ? Type::none : it->second;
}

void Lexer::fail(const std::string& what) const {
  throw Error("line " + std::to_string(line_) + ": " + what);
}

void Lexer::skip_blanks() {
  while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) {
    if (text_[at_] == '\n') ++line_;
    ++at_;
  }
}

char Lexer::peek() {
  skip_blanks();
  return at_ < text_.size() ? text_[at_] : '\0';
}

bool Lexer::take(char c) {
  if (peek() != c) return false;
  ++at_;
  return true;
}

void Lexer::expect(char c) {
  if (!take(c)) {
    const std::string_view rest = text_.substr(at_, 40);
    fail(std::string("expected '") + c + "' at \"" + std::string(rest.substr(0, rest.find('\n'))) +
         '"');
  }
}

bool Lexer::at_number() {
  const char c = peek();
  return is_digit(c) || c == '-' || c == '+';
}

bool Lexer::starts(std::string_view s) {
  skip_blanks();
  return text_.compare(at_, s.size(), s) == 0;
}

std::string_view Lexer::word(std::string_view also) {
  skip_blanks();
  const std::size_t from = at_;
  while (at_ < text_.size() && (is_word(text_[at_]) || also.find(text_[at_]) != also.npos)) ++at_;
  return text_.substr(from, at_ - from);
}

std::string_view Lexer::advance(std::size_t to) {
  const std::string_view passed = text_.substr(at_, to - at_);
  line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
  at_ += passed.size();
  return passed;
}

std::string_view Lexer::until(char end) {
  const std::size_t to = text_.find(end, at_);
  if (to == text_.npos) fail(std::string("no '") + end + "' follows");
  const std::string_view before = advance(to);
  advance(to + 1);
  return before;
}

std::string_view Lexer::string() {
  expect('"');
  return until('"');
}

std::string_view Lexer::braces() {
  expect('{');
  int depth = 1;
  for (std::size_t to = at_; to < text_.size(); ++to) {
    if (text_[to] == '{') ++depth;
    if (text_[to] == '}' && --depth == 0) {
      const std::string_view inside = advance(to);
      ++at_;
      return inside;
    }
  }
  fail("a '{' without its '}'");
}

bool Lexer::ends_line() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\r'))
    ++at_;
  return at_ == text_.size() || text_[at_] == '\n';
}

int Lexer::integer() {
  const std::string_view digits = word();
  int value = 0;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), value);
  if (error != std::errc() || end != digits.end())
    fail("expected a number, got \"" + std::string(digits) + '"');
  return value;
}

std::uint64_t Lexer::number(Type type) {
  bool minus = false;
  if (peek() == '-' || peek() == '+') minus = text_[at_++] == '-';
  std::string_view text = word(".");
  const auto parse = [&](std::string_view digits, int base) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), value, base);
    if (digits.empty() || error != std::errc() || end != digits.end())
      fail("expected a number, got \"" + std::string(text) + '"');
    return value;
  };
  const char kind = text.size() > 2 && text[0] == '0' ? text[1] : '\0';
  if (kind == 'f' || kind == 'F') {
    const std::uint64_t bits = parse(text.substr(2), 16) ^ (minus ? 0x80000000u : 0u);
    if (type != Type::f64) return bits;
    return std::bit_cast<std::uint64_t>(
        static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits))));
  }
  if (kind == 'd' || kind == 'D') return parse(text.substr(2), 16) ^ (minus ? 1ull << 63 : 0);
  if (text.ends_with('U')) text.remove_suffix(1);
  std::uint64_t bits;
  if (kind == 'x' || kind == 'X')
    bits = parse(text.substr(2), 16);
  else if (kind == 'b' || kind == 'B')
    bits = parse(text.substr(2), 2);
  else
    bits = text.size() > 1 && text[0] == '0' ? parse(text, 8) : parse(text, 10);
  if (minus) bits = -bits;
  return type == Type::pred && bits ? ~0ull : bits;
}

}  // namespace vgpu::ptx
