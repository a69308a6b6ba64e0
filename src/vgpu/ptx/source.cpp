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

// "convnet::global_thread" of "_ZN7convnet13global_threadEv"
std::string without_arguments(const std::string& mangled) {
  const std::string name = demangled(mangled);
  int depth = 0;  // arguments go: from the first '(' outside of template arguments
  for (std::size_t i = 0; i < name.size(); ++i) {
    depth += (name[i] == '<') - (name[i] == '>');
    if (name[i] == '(' && depth == 0 && name.compare(i, 21, "(anonymous namespace)") != 0)
      return name.substr(0, i);
  }
  return name;
}
std::string function_name(const PtxModule& module, const Location& l) {
  if (!l.called.empty()) return without_arguments(std::string(l.called));
  const auto string = module.debug_strings.find(l.function);
  return string == module.debug_strings.end() ? "" : without_arguments(string->second);
}

}  // namespace

std::string demangled(const std::string& name) {
  if (!name.starts_with("_Z")) return name;  // "a" would be the type `signed char`
  int status = 0;
  char* const readable = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string result = status == 0 ? readable : name;
  std::free(readable);
  return result;
}

std::string ptx_source(const PtxModule& module, const Code& code, int at) {
  if (at < 0 || at >= static_cast<int>(code.locations.size())) return "?";
  std::string text;
  const char* how = "";
  for (; at >= 0; at = code.locations[at].inlined_at) {
    const Location& l = code.locations[at];
    text += how + file_and_line(module, l);
    how = l.called.empty() ? ", inlined at " : ", called at ";
    if (l.inlined_at >= 0)
      if (const std::string name = function_name(module, l); !name.empty())
        text += " (" + name + ")";
  }
  return text;
}

}  // namespace vgpu
