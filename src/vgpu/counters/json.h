// Writes JSON, a member at a time.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace vgpu {

class Json {
 public:
  // A list or an object as a member, or, without a name, as an element of a list.
  void open(const char* name, char bracket) {
    begin(name);
    text_ += bracket;
    first_ = true;
  }
  void close(char bracket) {
    text_ += bracket;
    first_ = false;
  }
  void number(const char* name, std::uint64_t value) {
    begin(name);
    text_ += std::to_string(value);
  }
  void text(const char* name, std::string_view value) {
    begin(name);
    quote(value);
  }
  const std::string& text() const { return text_; }

 private:
  void begin(const char* name) {
    if (!first_) text_ += ',';
    first_ = false;
    if (!name) return;
    quote(name);
    text_ += ':';
  }
  void quote(std::string_view value) {
    text_ += '"';
    for (const char c : value) {
      if (c == '"' || c == '\\') text_ += '\\';
      text_ += c;
    }
    text_ += '"';
  }

  std::string text_;
  bool first_ = true;
};

}  // namespace vgpu
