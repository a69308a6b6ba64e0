// Decodes the body of a kernel, statement by statement.
#include <mutex>
#include <string>

#include "vgpu/ptx/families.h"
#include "vgpu/ptx/registers.h"

namespace vgpu {
namespace ptx {
namespace {

class KernelReader {
 public:
  KernelReader(const PtxModule& module, const Kernel& kernel, Code& code)
      : code_(code), text_(kernel.body, kernel.line), names_(module, kernel, code) {}

  void run() {
    int depth = 0;
    while (true) {
      const char c = text_.peek();
      if (c == '\0') break;
      if (text_.take('{')) {
        names_.open_scope();
        ++depth;
      } else if (text_.take('}')) {
        if (depth-- == 0) text_.fail("a '}' without its '{'");
        names_.close_scope();
      } else if (text_.take('.')) {
        directive();
      } else if (!label()) {
        instruction();
      }
    }
    finish();
  }

 private:
  bool label() {
    Lexer ahead = text_;
    const std::string_view name = ahead.word();
    if (name.empty() || !ahead.take(':')) return false;
    text_ = ahead;
    names_.declare_label(name, static_cast<int>(code_.ins.size()), text_);
    return true;
  }

  void instruction() {
    Statement s(text_, names_, code_);
    const Family* const family = family_of(s.mnemonic());
    if (!family) text_.fail("the instruction " + std::string(s.mnemonic()) + " is not known");
    s.ins.op = family->op;
    family->decode(s);
    s.finish();
  }

  void directive() {
    const std::string_view name = text_.word();
    if (name == "loc") return location();
    if (name == "pragma") {  // hints: about unrolling
      text_.until(';');
      return;
    }
    if (name == "reg")
      registers();
    else if (name == "shared")
      names_.declare_shared(read_variable(text_));
    else if (name == "local")
      names_.declare_local(read_variable(text_));
    else
      text_.fail("directive ." + std::string(name) + " in a kernel");
    text_.expect(';');
  }

  // .reg .b32 %r<12>, %x;
  void registers() {
    text_.expect('.');
    const std::string_view name = text_.word();
    const Type type = type_of(name);
    if (type == Type::none) text_.fail("a register of type ." + std::string(name));
    do {
      const std::string_view variable = text_.word();
      if (text_.take('<')) {
        text_.number(Type::u32);
        text_.expect('>');
        names_.declare_registers(variable, type);
      } else {
        names_.declare_register(variable, type);
      }
    } while (text_.take(','));
  }

  // .loc file line column{, function_name label, inlined_at file line column}
  void location() {
    Location l = place();
    while (text_.take(',')) {
      const std::string_view attribute = text_.word();
      if (attribute == "function_name")
        function_name(l);
      else if (attribute == "inlined_at")
        l.inlined_at = call_at(place());
      else
        text_.fail("attribute " + std::string(attribute) + " of .loc");
    }
    code_.locations.push_back(l);
  }
  void function_name(Location& l) {
    l.function = text_.word();
    if (text_.take('+')) text_.fail("an offset into .debug_str");
  }
  Location place() {
    Location l;
    l.file = text_.integer();
    l.line = text_.integer();
    l.column = text_.integer();
    return l;
  }
  // The location of the call, which says whether it is in inlined code itself: the last one at this
  // place, as the compiler writes the places of calls before the inlined code.
  int call_at(const Location& l) {
    for (int k = static_cast<int>(code_.locations.size()); k-- > 0;) {
      const Location& o = code_.locations[k];
      if (o.file == l.file && o.line == l.line && o.column == l.column) return k;
    }
    code_.locations.push_back(l);
    return static_cast<int>(code_.locations.size()) - 1;
  }

  void finish() {
    Ins end;
    end.op = Op::ret;
    end.loc = static_cast<int>(code_.locations.size()) - 1;
    end.line = text_.line();
    code_.ins.push_back(end);
    names_.resolve();
    code_.ins.front().leader = true;
    for (std::size_t i = 0; i + 1 < code_.ins.size(); ++i)
      if (code_.ins[i].op == Op::bra) code_.ins[i + 1].leader = true;
    allocate_registers(code_, names_.classes(), names_.fixed());
  }

  Code& code_;
  Lexer text_;
  Names names_;
};

}  // namespace
}  // namespace ptx

bool ptx_decode(PtxModule& module, Kernel& kernel, std::string* error) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (kernel.code) return true;
  auto code = std::make_shared<Code>();
  try {
    ptx::KernelReader(module, kernel, *code).run();
  } catch (const std::exception& e) {
    *error = e.what();
    return false;
  }
  kernel.static_shared = code->shared_bytes;
  kernel.local_bytes = code->local_bytes;
  kernel.code = std::move(code);
  return true;
}

}  // namespace vgpu
