// Decodes the body of a kernel, statement by statement.
#include <mutex>
#include <string>
#include <vector>

#include "vgpu/ptx/families.h"
#include "vgpu/ptx/registers.h"

namespace vgpu {
namespace ptx {
namespace {

class KernelReader {
 public:
  KernelReader(const PtxModule& module, const Kernel& kernel, Code& code)
      : module_(module),
        code_(code),
        text_(kernel.body, kernel.line),
        names_(module, kernel, code) {}

  void run() {
    body();
    finish();
  }

 private:
  // A function that is being decoded, and where it was called.
  struct Call {
    const DeviceFunction* function;
    int location;
  };
  static constexpr std::string_view kReturn = "(return)", kSkip = "(no call)";  // labels

  void body() {
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
  }

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
    if (s.mnemonic() == "call") return call(s);
    if (s.mnemonic() == "ret" && !calls_.empty()) return jump(s, kReturn);
    const Family* const family = family_of(s.mnemonic());
    if (!family) text_.fail("the instruction " + std::string(s.mnemonic()) + " is not known");
    s.ins.op = family->op;
    family->decode(s);
    s.finish();
  }

  void jump(Statement& s, std::string_view label) {
    s.skip({"uni"});
    s.ins.op = Op::bra;
    names_.branch(label, static_cast<int>(code_.ins.size()));
    s.finish();
  }

  // call{.uni} {(results),} function{, (arguments)};
  void call(Statement& s) {
    s.skip({"uni"});
    std::vector<std::string_view> results, arguments;
    if (text_.take('(')) {
      results = variables();
      text_.expect(',');
    }
    const std::string_view name = text_.word();
    const auto found = module_.functions.find(name);
    if (name.starts_with('%'))
      text_.fail("a call by the address " + std::string(name) + ": that is not implemented");
    if (found == module_.functions.end())
      text_.fail("a call of " + std::string(name) + ", which is not in this module");
    if (text_.take(',')) {
      text_.expect('(');
      arguments = variables();
    }
    const DeviceFunction& f = found->second;
    check_callable(f);
    names_.open_scope();
    if (s.ins.pred >= 0) {
      s.ins.negated = !s.ins.negated;
      jump(s, kSkip);
    } else {
      text_.expect(';');
    }
    expand(f, results, arguments);
    names_.declare_label(kSkip, static_cast<int>(code_.ins.size()), text_);
    names_.close_scope();
  }
  std::vector<std::string_view> variables() {
    std::vector<std::string_view> names;
    while (!text_.take(')')) {
      names.push_back(text_.word());
      text_.take(',');
    }
    return names;
  }
  void check_callable(const DeviceFunction& f) const {
    const auto refuse = [&](const std::string& why) {
      text_.fail("a call of " + demangled(f.name) + ", " + why + ": that is not implemented");
    };
    if (!f.defined) refuse("which is not in this module");
    if (f.in_registers) refuse("whose parameters are registers");
    for (const Call& c : calls_)
      if (c.function == &f) refuse("which has called itself");
  }
  // The function's instructions, here.
  void expand(const DeviceFunction& f, const std::vector<std::string_view>& results,
              const std::vector<std::string_view>& arguments) {
    names_.begin_call(f, results, arguments, text_);
    calls_.push_back({&f, static_cast<int>(code_.locations.size()) - 1});
    const Lexer after = text_;
    const int location = static_cast<int>(code_.locations.size()) - 1;
    text_ = Lexer(f.body, f.line);
    body();
    text_ = after;
    names_.declare_label(kReturn, static_cast<int>(code_.ins.size()), text_);
    calls_.pop_back();
    names_.end_call();
    if (location >= 0) code_.locations.push_back(Location(code_.locations[location]));
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
    else if (name == "local" || name == "param")  // of a call that follows
      names_.declare_local(read_variable(text_));
    else if (name == "callprototype")
      text_.fail("a call by an address: that is not implemented");
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
    if (l.inlined_at < 0 && !calls_.empty()) {
      l.inlined_at = calls_.back().location;
      l.called = calls_.back().function->name;
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

  const PtxModule& module_;
  Code& code_;
  Lexer text_;
  Names names_;
  std::vector<Call> calls_;  // the outermost first
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
