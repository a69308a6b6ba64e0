// Reads a module from top to bottom. The bodies of kernels are only found here: they are decoded
// when first needed.
#include "vgpu/ptx/module.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "vgpu/ptx/variable.h"
#include "vgpu/vgpu.h"

namespace vgpu {
namespace ptx {
namespace {

// Comments become blanks, so that lines keep their numbers.
void blank_comments(std::string& s) {
  for (std::size_t i = 0; i + 1 < s.size(); ++i) {
    if (s[i] != '/' || (s[i + 1] != '/' && s[i + 1] != '*')) continue;
    const bool line = s[i + 1] == '/';
    const std::size_t end = line ? s.find('\n', i) : s.find("*/", i + 2);
    const std::size_t to = end == s.npos ? s.size() : line ? end : end + 2;
    for (; i < to; ++i)
      if (s[i] != '\n') s[i] = ' ';
    --i;
  }
}

class ModuleReader {
 public:
  explicit ModuleReader(PtxModule& module) : module_(module), text_(module.text) {}

  void run() {
    if (!text_.starts(".version")) text_.fail("not PTX: it does not begin with .version");
    while (text_.peek() != '\0') directive();
  }

 private:
  void directive() {
    text_.expect('.');
    const std::string_view name = text_.word();
    if (name == "version") {
      text_.word(".");
    } else if (name == "address_size") {
      if (text_.integer() != 64) text_.fail("only .address_size 64");
    } else if (name == "target") {
      target();
    } else if (name == "file") {
      file();
    } else if (name == "section") {
      section();
    } else if (name == "visible" || name == "weak" || name == "common") {
      // The linkage of what follows: there is one module, and its names are found.
    } else if (name == "extern") {
      external_ = true;
      return;
    } else if (name == "pragma") {
      text_.until(';');
    } else if (name == "entry") {
      entry();
    } else if (name == "func") {
      function();
    } else if (name == "global" || name == "const") {
      global();
    } else if (name == "shared") {
      shared();
    } else {
      text_.fail("directive ." + std::string(name));
    }
    external_ = false;
  }

  void target() {
    const std::string_view name = text_.word();  // sm_90a
    for (const char c : name)
      if (is_digit(c)) module_.target = 10 * module_.target + (c - '0');
    while (text_.take(',')) text_.word();  // texmode_independent, debug
  }

  void file() {
    const int number = text_.integer();
    module_.files[number] = std::string(text_.string());
    while (text_.take(',')) text_.number(Type::u64);  // its time and size
  }

  // .debug_str holds the names of inlined functions, as bytes. Other sections are for debuggers.
  void section() {
    const std::string_view name = text_.word(".");
    const int line = text_.line();
    Lexer bytes(text_.braces(), line);
    if (name != ".debug_str") return;
    std::string* current = nullptr;
    while (bytes.peek() != '\0') {
      if (!bytes.take('.')) {
        current = &module_.debug_strings[std::string(bytes.word())];
        bytes.expect(':');
        continue;
      }
      if (bytes.word() != "b8" || !current) bytes.fail("expected a label or .b8 in .debug_str");
      do {
        const char c = static_cast<char>(bytes.number(Type::u8));
        if (c) current->push_back(c);
      } while (bytes.take(','));
    }
  }

  // .maxntid 256, 1, 1 and the like: PTX ISA, "Performance-Tuning Directives" and "Cluster
  // Dimension Directives".
  void performance_directive(Kernel& k) {
    const std::string_view directive = text_.word();
    int size[3] = {1, 1, 1}, n = 0;
    if (text_.at_number()) do
        size[n++ % 3] = static_cast<int>(text_.integer());
      while (text_.take(','));
    if (directive == "maxntid" || directive == "reqntid") {
      k.max_threads = size[0] * size[1] * size[2];
      if (directive == "reqntid") std::copy(size, size + 3, k.required_block);
    } else if (directive == "reqnctapercluster") {
      std::copy(size, size + 3, k.required_cluster);
    } else if (directive != "minnctapersm" && directive != "maxnctapersm" &&
               directive != "maxnreg" && directive != "pragma" && directive != "explicitcluster" &&
               directive != "maxclusterrank") {
      text_.fail("directive ." + std::string(directive) + " of a kernel");
    }
  }

  void entry() {
    Kernel k;
    k.name = std::string(text_.word());
    if (text_.take('(')) parameters(k);
    while (text_.take('.')) performance_directive(k);
    if (text_.take(';')) return;  // a declaration
    text_.peek();
    k.line = text_.line();
    k.body = text_.braces();
    module_.kernels.emplace(k.name, std::move(k));
  }

  void parameters(Kernel& k) {
    long offset = 0;
    while (!text_.take(')')) {
      text_.expect('.');
      if (text_.word() != "param") text_.fail("expected .param");
      const Variable v = read_variable(text_);
      offset = round_up(offset, v.align);
      k.params.push_back(
          {std::string(v.name), static_cast<int>(offset), static_cast<int>(v.bytes)});
      offset += v.bytes;
      text_.take(',');
    }
    k.param_bytes = static_cast<int>(offset);
  }

  // .func {(.param .b32 result)} name{(.param .b64 a, .param .align 8 .b8 b[16])}
  void function() {
    DeviceFunction f;
    if (text_.take('(')) f.results = arguments(f);
    f.name = std::string(text_.word());
    if (text_.take('(')) f.params = arguments(f);
    while (text_.take('.')) text_.word();  // .noreturn
    if (text_.take(';')) {                 // a declaration
      module_.functions.try_emplace(f.name, f);
      return;
    }
    text_.peek();
    f.line = text_.line();
    f.body = text_.braces();
    f.defined = true;
    module_.functions.insert_or_assign(f.name, f);
  }
  std::vector<std::string> arguments(DeviceFunction& f) {
    std::vector<std::string> names;
    while (!text_.take(')')) {
      text_.expect('.');
      if (text_.word() == "reg") f.in_registers = true;
      names.emplace_back(read_variable(text_).name);
      text_.take(',');
    }
    return names;
  }

  void global() {
    const Variable v = read_variable(text_);
    if (external_) text_.fail("an external variable: " + std::string(v.name));
    const Global g{memory_alloc(std::max<long>(v.bytes, 1), module_.device),
                   static_cast<std::uint64_t>(v.bytes)};
    char* const bytes = memory_host(g.address);
    std::memset(bytes, 0, v.bytes);
    if (text_.take('=')) initialise(v, bytes);
    text_.expect(';');
    module_.globals[std::string(v.name)] = g;
  }

  // Numbers only: addresses of other variables are refused.
  void initialise(const Variable& v, char* bytes) {
    long at = 0;
    int depth = 0;
    do {
      while (text_.take('{')) ++depth;
      if (!text_.at_number()) text_.fail("an initialiser that is no number");
      const std::uint64_t bits = text_.number(v.type);
      if (at + size_of(v.type) > v.bytes) text_.fail("more initialisers than elements");
      std::memcpy(bytes + at, &bits, size_of(v.type));
      at += size_of(v.type);
      while (depth > 0 && text_.take('}')) --depth;
    } while (text_.take(','));
    if (depth) text_.expect('}');
  }

  void shared() {
    const Variable v = read_variable(text_);
    text_.expect(';');
    module_.shared.push_back({std::string(v.name), v.bytes, v.align, external_});
  }

  PtxModule& module_;
  Lexer text_;
  bool external_ = false;
};

}  // namespace
}  // namespace ptx

std::shared_ptr<PtxModule> ptx_module(std::string text, int device, std::string* error) {
  auto module = std::make_shared<PtxModule>();
  module->text = std::move(text);
  module->device = device;
  ptx::blank_comments(module->text);
  try {
    ptx::ModuleReader(*module).run();
  } catch (const std::exception& e) {
    *error = e.what();
  }
  return module;
}

}  // namespace vgpu
