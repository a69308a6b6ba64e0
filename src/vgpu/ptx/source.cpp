// Where in the source an instruction came from, in words.
#include <cxxabi.h>

#include <cstdlib>

#include "vgpu/ptx/instruction.h"
#include "vgpu/ptx/module.h"

namespace vgpu {
namespace {

std::string file_and_line(const PtxModule& module, const Location& l) {
  const auto file = module.files.find(l.file);
  return (file == module.files.end() ? "?" : file->second) + ":" + std::to_string(l.line);
}

// "convnet::global_thread" of the label of "_ZN7convnet13global_threadEv"
std::string function_name(const PtxModule& module, std::string_view label) {
  const auto string = module.debug_strings.find(label);
  if (string == module.debug_strings.end()) return {};
  const std::string name = demangled(string->second);
  int depth = 0;  // arguments go: from the first '(' outside of template arguments
  for (std::size_t i = 0; i < name.size(); ++i) {
    depth += (name[i] == '<') - (name[i] == '>');
    if (name[i] == '(' && depth == 0 && name.compare(i, 21, "(anonymous namespace)") != 0)
      return name.substr(0, i);
  }
  return name;
}

}  // namespace

std::string demangled(const std::string& name) {
  int status = 0;
  char* const readable = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string result = status == 0 ? readable : name;
  std::free(readable);
  return result;
}

std::string ptx_source(const PtxModule& module, const Code& code, int at) {
  if (at < 0 || at >= static_cast<int>(code.locations.size())) return "?";
  std::string text;
  for (; at >= 0; at = code.locations[at].inlined_at) {
    const Location& l = code.locations[at];
    if (!text.empty()) text += ", inlined at ";
    text += file_and_line(module, l);
    if (l.inlined_at >= 0)
      if (const std::string name = function_name(module, l.function); !name.empty())
        text += " (" + name + ")";
  }
  return text;
}

}  // namespace vgpu
