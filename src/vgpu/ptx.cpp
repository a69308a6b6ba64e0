// PTX text -> kernels. ptx_module() finds the entries and the module's variables; ptx_decode()
// decodes one kernel when it is first needed: statements, scopes, labels, then a register
// allocation, as a warp's virtual registers, at 128 or 256 bytes each, would not stay in a cache.
#include "ptx.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

#include "vgpu.h"

namespace vgpu {
namespace {

struct Error {
  std::string text;
};

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%';
}

Type type_of(std::string_view s) {
  static const std::unordered_map<std::string_view, Type> types = {
      {"pred", Type::pred}, {"b8", Type::b8},   {"u8", Type::u8},   {"s8", Type::s8},
      {"b16", Type::b16},   {"u16", Type::u16}, {"s16", Type::s16}, {"f16", Type::f16},
      {"b32", Type::b32},   {"u32", Type::u32}, {"s32", Type::s32}, {"f32", Type::f32},
      {"b64", Type::b64},   {"u64", Type::u64}, {"s64", Type::s64}, {"f64", Type::f64},
      {"bf16", Type::bf16}};
  const auto it = types.find(s);
  return it == types.end() ? Type::none : it->second;
}

// A variable's declaration: .align 16 .b8 name[16896] = {...}
struct Variable {
  std::string name;
  long bytes = 0;
  int align = 1;
  Type type = Type::none;
  std::string_view init;
};
Variable parse_variable(std::string_view s) {
  Variable v;
  std::size_t i = 0;
  const auto word = [&] {
    const std::size_t from = i;
    while (i < s.size() && is_word(s[i])) ++i;
    return s.substr(from, i - from);
  };
  while (i < s.size()) {
    if (std::isspace(static_cast<unsigned char>(s[i])) || s[i] == ',') {
      ++i;
    } else if (s[i] == '.') {
      ++i;
      const std::string_view w = word();
      if (w == "align") {
        while (s[i] == ' ') ++i;
        v.align = std::atoi(std::string(word()).c_str());
      } else if (const Type t = type_of(w); t != Type::none) {
        v.type = t;
      } else if (w == "ptr") {  // .ptr .global .align 4 of a parameter: no alignment of the
                                // parameter itself
        while (i < s.size() && s[i] != ' ') ++i;
        while (s.compare(i, 2, " .") == 0) {
          i += 2;
          if (word() == "align") {
            ++i;
            word();
          }
        }
      }
    } else if (is_word(s[i])) {
      v.name = std::string(word());
      break;
    } else {
      ++i;
    }
  }
  long count = 1;
  while (i < s.size() && s[i] == '[') {
    const char* end = s.data() + i + 1;
    long n = 0;
    while (std::isdigit(static_cast<unsigned char>(*end))) n = n * 10 + (*end++ - '0');
    count *= n;
    i = end - s.data() + 1;
  }
  v.bytes = count * size_of(v.type);
  v.align = std::max(v.align, v.type == Type::none ? 1 : size_of(v.type));
  if (const std::size_t eq = s.find('=', i); eq != s.npos) v.init = s.substr(eq + 1);
  return v;
}

long round_up(long value, long to) { return (value + to - 1) / to * to; }

}  // namespace

std::shared_ptr<PtxModule> ptx_module(std::string text, int device, std::string* error) {
  auto m = std::make_shared<PtxModule>();
  m->text = std::move(text);
  m->device = device;
  // Comments become blanks, so that line numbers stay.
  for (std::size_t i = 0; i + 1 < m->text.size(); ++i) {
    if (m->text[i] == '/' && m->text[i + 1] == '/') {
      while (i < m->text.size() && m->text[i] != '\n') m->text[i++] = ' ';
    } else if (m->text[i] == '/' && m->text[i + 1] == '*') {
      const std::size_t end = std::min(m->text.find("*/", i), m->text.size() - 2) + 2;
      for (; i < end; ++i)
        if (m->text[i] != '\n') m->text[i] = ' ';
    }
  }
  const std::string_view s = m->text;
  std::size_t i = 0;
  int line = 1;
  const auto skip_braces = [&](std::size_t from) {
    int depth = 0;
    std::size_t j = from;
    for (; j < s.size(); ++j) {
      if (s[j] == '{') ++depth;
      if (s[j] == '}' && --depth == 0) break;
    }
    return j;
  };
  while (i < s.size()) {
    if (s[i] == '\n') ++line;
    if (s[i] != '.') {
      ++i;
      continue;
    }
    std::size_t end = i;
    // A top-level directive ends at ; or, for a function, at its closing brace, or at the end of
    // the line.
    const std::string_view rest = s.substr(i);
    const auto starts = [&](const char* w) { return rest.compare(0, std::strlen(w), w) == 0; };
    if (starts(".version") || starts(".address_size")) {
      end = s.find('\n', i);
    } else if (starts(".target")) {
      const std::size_t at = s.find("sm_", i);
      m->target = std::atoi(s.data() + at + 3);
      end = s.find('\n', i);
    } else if (starts(".file")) {
      const int number = std::atoi(s.data() + i + 5);
      const std::size_t from = s.find('"', i) + 1, to = s.find('"', from);
      m->files[number] = std::string(s.substr(from, to - from));
      end = s.find('\n', i);
    } else if (starts(".section")) {
      end = skip_braces(i) + 1;
    } else if (starts(".visible") || starts(".weak ") || starts(".extern")) {
      end = i + 7;
      ++i;
      if (starts(".extern")) {  // extern shared memory: its size is the launch's
        end = s.find(';', i);
      }
    } else if (starts(".entry") || starts(".func")) {
      const bool entry = starts(".entry");
      const std::size_t open = s.find('{', i), semicolon = s.find(';', i);
      if (semicolon < open) {
        end = semicolon;
      } else {
        const std::size_t close = skip_braces(open);
        if (entry) {
          Kernel k;
          std::size_t from = i + 6;
          while (std::isspace(static_cast<unsigned char>(s[from]))) ++from;
          std::size_t to = from;
          while (is_word(s[to])) ++to;
          k.name = std::string(s.substr(from, to - from));
          const std::size_t paren = s.find('(', to);
          std::size_t head = to;
          if (paren < open) {
            const std::size_t last = s.find(')', paren);
            std::string_view list = s.substr(paren + 1, last - paren - 1);
            long offset = 0;
            while (list.find(".param") != list.npos) {
              const std::size_t at = list.find(".param") + 6, comma = list.find(".param", at);
              const Variable v =
                  parse_variable(list.substr(at, comma == list.npos ? list.npos : comma - at));
              offset = round_up(offset, v.align);
              k.params.push_back({v.name, static_cast<int>(offset), static_cast<int>(v.bytes)});
              offset += v.bytes;
              list = comma == list.npos ? std::string_view() : list.substr(comma);
            }
            k.param_bytes = static_cast<int>(offset);
            head = last;
          }
          const std::string attributes(s.substr(head, open - head));
          for (const char* w : {".maxntid", ".reqntid"})
            if (const std::size_t at = attributes.find(w); at != attributes.npos) {
              int x = 1, y = 1, z = 1;
              sscanf(attributes.c_str() + at + 8, "%d , %d , %d", &x, &y, &z);
              k.max_threads = x * y * z;
            }
          k.body = s.substr(open + 1, close - open - 1);
          k.line = line + static_cast<int>(std::count(s.begin() + i, s.begin() + open, '\n'));
          m->kernels.emplace(k.name, std::move(k));
        }
        end = close;
      }
    } else if (starts(".global") || starts(".const") || starts(".shared")) {
      const bool shared = starts(".shared");
      end = s.find(';', i);
      const std::size_t from = i + (starts(".const") ? 6 : 7);
      const Variable v = parse_variable(s.substr(from, end - from));
      if (!shared) {
        Global g{memory_alloc(std::max<long>(v.bytes, 1), device),
                 static_cast<std::uint64_t>(v.bytes)};
        char* const bytes = memory_host(g.address);
        std::memset(bytes, 0, v.bytes);
        long at = 0;
        for (std::size_t j = 0; j < v.init.size();) {
          if (std::isdigit(static_cast<unsigned char>(v.init[j])) || v.init[j] == '-') {
            char* stop;
            const std::uint64_t bits = std::strtoull(v.init.data() + j, &stop, 0);
            std::memcpy(bytes + at, &bits, size_of(v.type));
            at += size_of(v.type);
            j = stop - v.init.data();
          } else {
            ++j;
          }
        }
        m->globals[v.name] = g;
      }
    } else {
      end = i + 1;
    }
    if (end == s.npos || end <= i) end = i + 1;
    line += static_cast<int>(std::count(s.begin() + i, s.begin() + std::min(end, s.size()), '\n'));
    i = end;
  }
  if (m->kernels.empty() && s.find(".version") == s.npos) *error = "not PTX";
  return m;
}

// --- decoding of a kernel

namespace {

enum class RegClass : std::uint8_t { none, pred, b16, b32, b64 };
RegClass class_of(Type t) {
  if (t == Type::pred) return RegClass::pred;
  switch (size_of(t)) {
    case 8:
      return RegClass::b64;
    case 4:
      return RegClass::b32;
    default:
      return RegClass::b16;
  }
}
int lane_bytes(RegClass c) { return c == RegClass::b64 ? 8 : c == RegClass::b16 ? 2 : 4; }

struct Symbol {
  Space space;
  std::int64_t address;
};

class Decoder {
 public:
  Decoder(PtxModule& module, Kernel& kernel)
      : module_(module), kernel_(kernel), code_(std::make_shared<Code>()) {}

  void run() {
    for (const Param& p : kernel_.params) symbols_[p.name] = {Space::param, p.offset};
    for (const auto& [name, g] : module_.globals)
      symbols_[name] = {Space::global, static_cast<std::int64_t>(g.address)};
    module_shared();
    scopes_.emplace_back();
    statements();
    resolve();
    place_extern();
    code_->virtual_registers = static_cast<int>(classes_.size());
    allocate();
    code_->shared_bytes = static_cast<int>(shared_);
    code_->local_bytes = static_cast<int>(local_);
    kernel_.static_shared = static_cast<int>(shared_);
    kernel_.local_bytes = static_cast<int>(local_);
    kernel_.code = code_;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error{"line " + std::to_string(line_) + ": " + what};
  }

  // --- text
  void skip() {
    while (at_ < body().size() && std::isspace(static_cast<unsigned char>(body()[at_]))) {
      if (body()[at_] == '\n') ++line_;
      ++at_;
    }
  }
  std::string_view body() const { return kernel_.body; }
  char peek() {
    skip();
    return at_ < body().size() ? body()[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void want(char c) {
    if (!take(c)) fail(std::string("expected ") + c + " at " + std::string(body().substr(at_, 40)));
  }
  std::string_view word(const char* more = "") {
    skip();
    const std::size_t from = at_;
    while (at_ < body().size() && (is_word(body()[at_]) || std::strchr(more, body()[at_])) &&
           body()[at_])
      ++at_;
    return body().substr(from, at_ - from);
  }

  // Variables of the module: shared ones that this kernel names, and extern shared memory, whose
  // place is behind the static.
  void module_shared() {
    const std::string_view s = module_.text;
    for (std::size_t i = 0; (i = s.find(".shared", i)) != s.npos; i += 7) {
      const std::size_t line = s.rfind('\n', i) + 1;
      const std::string_view before = s.substr(line, i - line);
      if (before.find_first_not_of(" \t") != before.npos && before.find(".extern") == before.npos &&
          before.find(".visible") == before.npos && before.find(".weak") == before.npos)
        continue;
      if (before.find('\t') != before.npos) continue;  // inside a function
      const Variable v = parse_variable(s.substr(i + 7, s.find(';', i) - i - 7));
      if (body().find(v.name) == body().npos) continue;
      if (before.find(".extern") != before.npos) {
        externs_.push_back(v);
        symbols_[v.name] = {Space::shared, -1};
      } else {
        add_shared(v);
      }
    }
  }
  void add_shared(const Variable& v) {
    shared_ = round_up(shared_, v.align);
    symbols_[v.name] = {Space::shared, shared_};
    shared_ += v.bytes;
  }
  void place_extern() {
    for (const Variable& v : externs_) shared_ = round_up(shared_, v.align);  // as ptxas does
    const long at = shared_;
    for (const int c : extern_constants_) code_->constants[c].bits += at;
    for (const int i : extern_immediates_) code_->ins[i].imm += at;
  }

  // --- registers
  int make(RegClass c) {
    classes_.push_back(c);
    return static_cast<int>(classes_.size()) - 1;
  }
  int find(std::string_view name) {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      const auto it = scope->names.find(name);
      if (it != scope->names.end()) return it->second;
      for (const auto& [prefix, type] : scope->prefixes)
        if (name.size() > prefix.size() && name.compare(0, prefix.size(), prefix) == 0 &&
            name.find_first_not_of("0123456789", prefix.size()) == name.npos) {
          const int slot = make(class_of(type));
          scope->names.emplace(name, slot);
          return slot;
        }
    }
    return -1;
  }
  int constant(std::uint64_t bits, RegClass c) {
    const auto key = std::make_pair(bits, c);
    const auto it = constants_.find(key);
    if (it != constants_.end()) return it->second;
    const int slot = make(c);
    code_->constants.push_back({slot, bits, lane_bytes(c)});
    fixed_.push_back(slot);
    return constants_[key] = slot;
  }
  int special(std::string_view name) {
    const auto it = specials_.find(std::string(name));
    if (it != specials_.end()) return it->second;
    const int slot =
        make(name == "%clock64" || name == "%globaltimer" || name == "%gridid" ? RegClass::b64
                                                                               : RegClass::b32);
    code_->specials.emplace_back(slot, std::string(name));
    fixed_.push_back(slot);
    return specials_[std::string(name)] = slot;
  }

  // An operand as a slot; an immediate is made a constant of the type's width.
  int operand(Type type) {
    const char c = peek();
    if (std::isdigit(static_cast<unsigned char>(c)) || c == '-' || c == '+')
      return constant(number(type), class_of(type));
    if (c == '!') {
      ++at_;
      const int a = operand(Type::pred);
      const int d = make(RegClass::pred);
      Ins i;
      i.op = Op::not_, i.type = Type::pred, i.d = d, i.a = a;
      emit(i);
      return d;
    }
    const std::string_view name = word(".");
    if (name == "_") return -1;
    if (const int slot = find(name); slot >= 0) return slot;
    if (name.size() > 1 && name[0] == '%') return special(name);
    if (const auto it = symbols_.find(std::string(name)); it != symbols_.end()) {
      std::int64_t offset = 0;
      if (take('+')) offset = static_cast<std::int64_t>(number(Type::s64));
      if (it->second.space == Space::shared && it->second.address < 0) {
        const int slot = make(class_of(type));
        extern_constants_.push_back(static_cast<int>(code_->constants.size()));
        code_->constants.push_back(
            {slot, static_cast<std::uint64_t>(offset), lane_bytes(class_of(type))});
        fixed_.push_back(slot);
        return slot;
      }
      return constant(it->second.address + offset, class_of(type));
    }
    fail("unknown operand " + std::string(name));
  }
  std::uint64_t number(Type type) {
    skip();
    bool minus = false;
    if (body()[at_] == '-' || body()[at_] == '+') minus = body()[at_++] == '-';
    skip();
    const std::string text(word("."));
    std::uint64_t bits;
    if (text.size() > 2 && text[0] == '0' && (text[1] == 'f' || text[1] == 'F')) {
      bits = std::strtoull(text.c_str() + 2, nullptr, 16);
      if (minus) bits ^= 0x80000000u;
      if (type == Type::f64) {
        float f;
        const auto b = static_cast<std::uint32_t>(bits);
        std::memcpy(&f, &b, 4);
        const double d = f;
        std::memcpy(&bits, &d, 8);
      }
      return bits;
    }
    if (text.size() > 2 && text[0] == '0' && (text[1] == 'd' || text[1] == 'D'))
      return std::strtoull(text.c_str() + 2, nullptr, 16) ^ (minus ? 1ull << 63 : 0);
    bits = std::strtoull(text.c_str(), nullptr, 0);
    if (minus) bits = -bits;
    if (type == Type::pred) bits = bits ? ~0ull : 0;
    return bits;
  }
  // [symbol+12], [%rd1+-4]: a register (or -1) and an offset.
  void address(Ins* i) {
    want('[');
    Type type = Type::u64;
    const char c = peek();
    if (std::isdigit(static_cast<unsigned char>(c))) {
      i->imm = static_cast<std::int64_t>(number(type));
    } else {
      const std::string_view name = word(".");
      const auto it = symbols_.find(std::string(name));
      if (it != symbols_.end()) {
        if (it->second.space == Space::shared && it->second.address < 0)
          extern_immediates_.push_back(static_cast<int>(code_->ins.size()));
        else
          i->imm = it->second.address;
      } else {
        i->a = find(name);
        if (i->a < 0) fail("unknown address " + std::string(name));
      }
    }
    if (take('+')) i->imm += static_cast<std::int64_t>(number(type));
    i->width2 = i->a < 0 ? 8 : static_cast<std::uint8_t>(lane_bytes(classes_[i->a]));
    want(']');
  }
  // [address] as a slot.
  int plain_address() {
    Ins at;
    address(&at);
    if (at.a >= 0 && at.imm == 0) return at.a;
    if (at.a < 0) return constant(at.imm, RegClass::b32);
    Ins sum;
    const RegClass c = classes_[at.a];
    sum.op = Op::add, sum.type = c == RegClass::b64 ? Type::u64 : Type::u32;
    sum.d = make(c), sum.a = at.a, sum.b = constant(at.imm, c);
    emit(sum);
    return sum.d;
  }
  // {a, b} or a, appended to the list of the instruction.
  int list(Ins* i, Type type) {
    if (i->list < 0) i->list = static_cast<int>(code_->lists.size());
    int count = 0;
    std::vector<int> slots;
    if (take('{')) {
      do slots.push_back(operand(type)), ++count;
      while (take(','));
      want('}');
    } else {
      slots.push_back(operand(type)), ++count;
    }
    // operand() may have emitted instructions, but never list entries.
    code_->lists.insert(code_->lists.end(), slots.begin(), slots.end());
    i->list_count += count;
    return count;
  }

  void emit(Ins i) {
    i.loc = static_cast<int>(code_->locations.size()) - 1;
    i.line = line_;
    code_->ins.push_back(i);
  }

  // --- statements
  struct Scope {
    std::unordered_map<std::string_view, int> names;
    std::vector<std::pair<std::string, Type>> prefixes;
    std::unordered_map<std::string_view, int> labels;
  };

  void statements() {
    line_ = kernel_.line;
    while (true) {
      const char c = peek();
      if (c == '\0') return;
      if (c == '{') {
        ++at_;
        scopes_.emplace_back();
        depth_labels_.push_back({});
      } else if (c == '}') {
        ++at_;
        scopes_.pop_back();
        depth_labels_.pop_back();
      } else if (c == '.') {
        directive();
      } else {
        const std::size_t from = at_;
        const int line = line_;
        const std::string_view name = word();
        if (peek() == ':' && body().compare(at_, 2, "::") != 0) {
          ++at_;
          labels_[std::string(name)] = static_cast<int>(code_->ins.size());
        } else {
          at_ = from;
          line_ = line;
          statement();
        }
      }
    }
  }
  void directive() {
    ++at_;
    const std::string_view name = word();
    if (name == "loc") {
      Location l;
      const auto integer = [&] {
        skip();
        return std::atoi(std::string(word()).c_str());
      };
      l.file = integer(), l.line = integer(), l.column = integer();
      // , function_name $L__info_string0, inlined_at 1 29 3
      while (take(',')) {
        const std::string_view attribute = word();
        if (attribute == "function_name") {
          l.function = std::string(word());
          if (take('+')) word();
        } else if (attribute == "inlined_at") {
          const int file = integer(), line = integer(), column = integer();
          for (int k = static_cast<int>(code_->locations.size()) - 1; k >= 0; --k) {
            const Location& call = code_->locations[k];
            if (call.file != file || call.line != line || call.column != column) continue;
            l.inlined_at = k;
            break;
          }
        } else {
          word();  // is_stmt 0, prologue_end
        }
      }
      code_->locations.push_back(l);
      return;
    }
    if (name == "pragma") {
      at_ = body().find(';', at_) + 1;
      return;
    }
    const std::size_t end = body().find(';', at_);
    const std::string_view rest = body().substr(at_, end - at_);
    if (name == "reg") {
      std::size_t i = rest.find('.');
      std::size_t to = i + 1;
      while (is_word(rest[to])) ++to;
      const Type type = type_of(rest.substr(i + 1, to - i - 1));
      i = to;
      while (i < rest.size()) {
        while (i < rest.size() && !is_word(rest[i])) ++i;
        to = i;
        while (to < rest.size() && is_word(rest[to])) ++to;
        if (to == i) break;
        const std::string_view variable = rest.substr(i, to - i);
        if (to < rest.size() && rest[to] == '<') {
          scopes_.back().prefixes.emplace_back(std::string(variable), type);
          to = rest.find('>', to);
        } else {
          scopes_.back().names.emplace(variable, make(class_of(type)));
        }
        i = to;
      }
    } else if (name == "shared") {
      add_shared(parse_variable(rest));
    } else if (name == "local") {
      const Variable v = parse_variable(rest);
      local_ = round_up(local_, v.align);
      symbols_[v.name] = {Space::local, local_};
      local_ += v.bytes;
    } else {
      fail("directive ." + std::string(name));
    }
    line_ += static_cast<int>(std::count(rest.begin(), rest.end(), '\n'));
    at_ = end + 1;
  }

  struct Opcode {
    std::string_view family;
    std::vector<std::string_view> parts;
    bool has(std::string_view s) const {
      return std::find(parts.begin(), parts.end(), s) != parts.end();
    }
  };

  void statement() {
    Ins i;
    if (take('@')) {
      i.negated = take('!');
      i.pred = find(word());
      if (i.pred < 0) fail("unknown predicate");
    }
    const std::string_view opcode = word(".:");
    Opcode o;
    for (std::size_t from = 0; from <= opcode.size();) {
      const std::size_t to = std::min(opcode.find('.', from), opcode.size());
      if (from == 0)
        o.family = opcode.substr(0, to);
      else
        o.parts.push_back(opcode.substr(from, to - from));
      from = to + 1;
    }
    int types = 0;
    for (const std::string_view p : o.parts) {
      if (const Type t = type_of(p); t != Type::none) {
        (types++ == 0 ? i.type : i.type2) = t;
        continue;
      }
      static const std::unordered_map<std::string_view, Round> rounds = {
          {"rn", Round::rn},   {"rz", Round::rz},   {"rm", Round::rm},   {"rp", Round::rp},
          {"rni", Round::rni}, {"rzi", Round::rzi}, {"rmi", Round::rmi}, {"rpi", Round::rpi}};
      if (const auto it = rounds.find(p); it != rounds.end())
        i.round = it->second;
      else if (p == "ftz")
        i.ftz = true;
      else if (p == "sat")
        i.sat = true;
      else if (p == "v2")
        i.vector = 2;
      else if (p == "v4")
        i.vector = 4;
      else if (p == "global")
        i.space = Space::global;
      else if (p.substr(0, 6) == "shared")
        i.space = Space::shared;
      else if (p == "local")
        i.space = Space::local;
      else if (p == "param")
        i.space = Space::param;
      else if (p == "const")
        i.space = Space::constant;
    }
    const std::string_view f = o.family;
    const Type t = i.type;
    const auto next = [&](Type type) {
      want(',');
      return operand(type);
    };
    const auto simple = [&](Op op, int operands) {
      i.op = op;
      i.d = operand(t);
      if (operands > 0) i.a = next(t);
      if (operands > 1) i.b = next(t);
      if (operands > 2) i.c = next(t);
    };
    static const std::unordered_map<std::string_view, std::pair<Op, int>> plain = {
        {"add", {Op::add, 2}},
        {"sub", {Op::sub, 2}},
        {"div", {Op::div, 2}},
        {"rem", {Op::rem, 2}},
        {"min", {Op::min, 2}},
        {"max", {Op::max, 2}},
        {"neg", {Op::neg, 1}},
        {"abs", {Op::abs, 1}},
        {"not", {Op::not_, 1}},
        {"and", {Op::and_, 2}},
        {"or", {Op::or_, 2}},
        {"xor", {Op::xor_, 2}},
        {"fma", {Op::fma, 3}},
        {"rsqrt", {Op::rsqrt, 1}},
        {"rcp", {Op::rcp, 1}},
        {"sqrt", {Op::sqrt, 1}},
        {"ex2", {Op::ex2, 1}},
        {"lg2", {Op::lg2, 1}},
        {"sin", {Op::sin, 1}},
        {"cos", {Op::cos, 1}},
        {"popc", {Op::popc, 1}},
        {"clz", {Op::clz, 1}},
        {"copysign", {Op::copysign, 2}},
        {"prmt", {Op::prmt, 3}}};
    if (const auto it = plain.find(f); it != plain.end()) {
      simple(it->second.first, it->second.second);
    } else if (f == "mul" || f == "mad") {
      const bool mad = f == "mad";
      if (o.has("wide")) {
        const Type wide = size_of(t) == 4 ? (t == Type::s32 ? Type::s64 : Type::u64)
                                          : (t == Type::s16 ? Type::s32 : Type::u32);
        i.op = mad ? Op::mad_wide : Op::mul_wide;
        i.d = operand(wide), i.a = next(t), i.b = next(t);
        if (mad) i.c = next(wide);
      } else {
        const bool hi = o.has("hi");
        simple(mad ? (hi ? Op::mad_hi : Op::mad_lo) : (hi ? Op::mul_hi : Op::mul_lo), mad ? 3 : 2);
      }
    } else if (f == "shl" || f == "shr") {
      i.op = f == "shl" ? Op::shl : Op::shr;
      i.d = operand(t), i.a = next(t), i.b = next(Type::u32);
    } else if (f == "bfi" || f == "bfe") {
      i.op = f == "bfi" ? Op::bfi : Op::bfe;
      i.d = operand(t), i.a = next(t);
      i.b = f == "bfi" ? next(t) : next(Type::u32);
      i.c = next(Type::u32);
      if (f == "bfi") i.e = next(Type::u32);
    } else if (f == "mov") {
      if (peek() == '{') {  // unpack
        i.op = Op::unpack;
        const Type part = t == Type::b64 || t == Type::u64 ? Type::b32 : Type::b16;
        i.list_defs = list(&i, part);
        i.vector = static_cast<std::uint8_t>(i.list_defs);
        i.a = next(t);
      } else {
        i.d = operand(t);
        want(',');
        if (peek() == '{') {
          i.op = Op::pack;
          const Type part = t == Type::b64 || t == Type::u64 ? Type::b32 : Type::b16;
          i.vector = static_cast<std::uint8_t>(list(&i, part));
        } else {
          i.op = Op::mov;
          i.a = operand(t);
        }
      }
    } else if (f == "cvta") {
      i.op = Op::mov;
      i.type = Type::u64;
      if (o.has("param") || o.has("shared") || o.has("local"))
        i.combine = static_cast<std::uint8_t>(i.space), i.op = Op::mov;
      i.d = operand(Type::u64), i.a = next(Type::u64);
      if (i.space == Space::shared || i.space == Space::param ||
          i.space == Space::local) {  // a window of the generic space
        const std::uint64_t window = static_cast<std::uint64_t>(i.space == Space::shared  ? 1
                                                                : i.space == Space::param ? 2
                                                                                          : 3)
                                     << 56;
        i.op = o.has("to") ? Op::sub : Op::add;
        i.b = constant(window, RegClass::b64);
      }
    } else if (f == "cvt") {
      i.op = Op::cvt;
      i.d = operand(i.type);
      if (t == Type::bf16 || i.type2 == Type::none || o.has("bf16x2")) {
        i.vector = 2;  // cvt.rn.bf16x2.f32 d, a, b
        i.type = Type::b32, i.type2 = Type::f32;
        i.a = next(Type::f32), i.b = next(Type::f32);
      } else {
        i.a = next(i.type2);
        i.width = static_cast<std::uint8_t>(lane_bytes(classes_[i.d]));
        i.width2 = static_cast<std::uint8_t>(lane_bytes(classes_[i.a]));
      }
    } else if (f == "setp") {
      static const std::unordered_map<std::string_view, Cmp> cmps = {
          {"eq", Cmp::eq},   {"ne", Cmp::ne},   {"lt", Cmp::lt},   {"le", Cmp::le},
          {"gt", Cmp::gt},   {"ge", Cmp::ge},   {"equ", Cmp::equ}, {"neu", Cmp::neu},
          {"ltu", Cmp::ltu}, {"leu", Cmp::leu}, {"gtu", Cmp::gtu}, {"geu", Cmp::geu},
          {"num", Cmp::num}, {"nan", Cmp::nan}, {"lo", Cmp::lt},   {"ls", Cmp::le},
          {"hi", Cmp::gt},   {"hs", Cmp::ge}};
      i.op = Op::setp;
      i.cmp = cmps.at(o.parts[0]);
      if (o.has("and")) i.combine = 1;
      if (o.has("or")) i.combine = 2;
      if (o.has("xor")) i.combine = 3;
      i.d = operand(Type::pred);
      if (take('|')) i.e = operand(Type::pred);
      i.a = next(t), i.b = next(t);
      if (i.combine) i.c = next(Type::pred);
    } else if (f == "selp") {
      i.op = Op::selp;
      i.d = operand(t), i.a = next(t), i.b = next(t), i.c = next(Type::pred);
    } else if (f == "ld" || f == "ldu") {
      i.op = Op::ld;
      i.list_defs = list(&i, t);
      const int first = code_->lists[i.list];
      i.width = static_cast<std::uint8_t>(first < 0 ? size_of(t) : lane_bytes(classes_[first]));
      want(',');
      address(&i);
    } else if (f == "st") {
      i.op = Op::st;
      address(&i);
      want(',');
      list(&i, t);
      i.width = static_cast<std::uint8_t>(lane_bytes(classes_[code_->lists[i.list]]));
    } else if (f == "bra") {
      i.op = Op::bra;
      branches_.emplace_back(static_cast<int>(code_->ins.size()), std::string(word()));
    } else if (f == "ret" || f == "exit") {
      i.op = Op::ret;
    } else if (f == "trap") {
      i.op = Op::trap;
    } else if (f == "bar" || f == "barrier") {
      if (o.has("warp")) {
        i.op = Op::bar_warp;
        i.a = operand(Type::u32);
      } else {
        i.op = o.has("arrive") ? Op::bar_arrive : Op::bar_sync;
        i.a = operand(Type::u32);
        if (take(',')) i.b = operand(Type::u32);
      }
    } else if (f == "shfl") {
      i.op = Op::shfl;
      i.combine = o.has("up") ? 0 : o.has("down") ? 1 : o.has("bfly") ? 2 : 3;
      i.type = Type::b32;
      i.list = static_cast<int>(code_->lists.size());
      const int d = operand(Type::b32), p = take('|') ? operand(Type::pred) : -1;
      const int a = next(Type::b32), b = next(Type::u32), c = next(Type::u32), m = next(Type::u32);
      for (const int slot : {d, p, a, b, c, m}) code_->lists.push_back(slot);
      i.list_count = 6, i.list_defs = 2;
    } else if (f == "vote" || f == "activemask") {
      i.op = f == "vote" ? Op::vote : Op::activemask;
      i.d = operand(o.has("ballot") || f == "activemask" ? Type::b32 : Type::pred);
      i.combine = o.has("ballot") ? 0 : o.has("any") ? 1 : o.has("all") ? 2 : 3;
      if (f == "vote") i.a = next(Type::pred), i.b = next(Type::u32);
    } else if (f == "mma") {
      i.op = Op::mma;
      i.vector = opcode.find("bf16") != opcode.npos ? 16 : 8;
      i.list_defs = list(&i, Type::f32);
      want(','), list(&i, Type::b32), want(','), list(&i, Type::b32), want(','),
          list(&i, Type::f32);
    } else if (f == "ldmatrix") {
      i.op = Op::ldmatrix;
      i.vector = o.has("x4") ? 4 : o.has("x2") ? 2 : 1;
      if (o.has("trans")) i.combine = 1;
      i.list_defs = list(&i, Type::b32);
      want(',');
      address(&i);
    } else if (f == "mbarrier") {
      if (o.has("init")) {
        i.op = Op::mbar_init;
        address(&i);
        i.b = next(Type::u32);
      } else if (o.has("arrive")) {
        i.op = o.has("expect_tx") ? Op::mbar_expect : Op::mbar_arrive;
        if (operand(Type::u64) >= 0) fail("mbarrier.arrive with a state");
        want(',');
        address(&i);
        if (take(',')) i.b = operand(Type::u32);
      } else if (o.has("try_wait") || o.has("test_wait")) {
        i.op = Op::mbar_wait;
        i.d = operand(Type::pred);
        want(',');
        address(&i);
        i.b = next(Type::u32);
      } else {
        fail("instruction " + std::string(opcode));
      }
    } else if (f == "cp" && o.has("bulk")) {
      const bool tensor = o.has("tensor");
      i.op = tensor ? Op::tma : Op::bulk;
      address(&i);  // shared
      want(',');
      if (tensor) {
        want('[');
        i.b = operand(Type::u64);  // the map
        want(',');
        i.vector = static_cast<std::uint8_t>(list(&i, Type::s32));
        want(']');
      } else {
        i.b = plain_address();
        i.e = next(Type::u32);
      }
      want(',');
      i.c = plain_address();
    } else if (f == "wgmma") {
      if (o.has("mma_async")) {
        i.op = Op::wgmma;
        const std::string shape(o.parts[3]);  // m64n128k8
        i.imm = std::atoi(shape.c_str() + shape.find('n') + 1);
        i.vector = static_cast<std::uint8_t>(std::atoi(shape.c_str() + shape.find('k') + 1));
        const std::size_t from = at_;
        const int line = line_;
        i.list_defs = list(&i, Type::f32);
        at_ = from, line_ = line;
        list(&i, Type::f32);  // the same ones are read
        want(',');
        if (list(&i, Type::b32) != 4) fail("wgmma with A in shared memory");
        i.a = next(Type::u64), i.b = next(Type::pred);
        at_ = body().find(';', at_);
      } else {
        i.op = o.has("fence")          ? Op::wgmma_fence
               : o.has("commit_group") ? Op::wgmma_commit
                                       : Op::wgmma_wait;
        if (i.op == Op::wgmma_wait) i.imm = static_cast<std::int64_t>(number(Type::u32));
      }
    } else if (f == "cp" && !o.has("bulk")) {
      if (o.has("commit_group") || o.has("wait_group") || o.has("wait_all")) {
        i.op = o.has("commit_group") ? Op::cp_commit : Op::cp_wait;
        if (o.has("wait_group")) i.imm = static_cast<std::int64_t>(number(Type::u32));
        if (o.has("wait_all")) i.combine = 1;
      } else {
        i.op = Op::cp_async;
        address(&i);  // shared
        want(',');
        Ins from;
        address(&from);
        i.b = from.a;
        if (from.imm) fail("cp.async with a global offset");  // never seen
        want(',');
        i.vector = static_cast<std::uint8_t>(number(Type::u32));
        if (take(',')) i.c = operand(Type::u32);
      }
    } else if (f == "membar" || f == "fence") {
      i.op = Op::fence;
      i.combine = o.has("proxy") ? 1 : o.has("mbarrier_init") ? 2 : 0;
    } else if (f == "setmaxnreg") {
      i.op = Op::setmaxnreg;
      i.combine = o.has("inc") ? 1 : 0;
      i.imm = static_cast<std::int64_t>(number(Type::u32));
    } else if (f == "prefetch" || f == "griddepcontrol") {
      i.op = Op::nothing;
      at_ = body().find(';', at_);
    } else if (f == "atom" || f == "red") {
      i.op = Op::atom;
      static const std::unordered_map<std::string_view, int> which = {
          {"add", 0}, {"min", 1}, {"max", 2}, {"exch", 3}, {"cas", 4},
          {"and", 5}, {"or", 6},  {"xor", 7}, {"inc", 8}};
      for (const std::string_view p : o.parts)
        if (const auto it = which.find(p); it != which.end())
          i.combine = static_cast<std::uint8_t>(it->second);
      if (f == "atom") i.d = operand(t), want(',');
      address(&i);
      i.b = next(t);
      if (i.combine == 4) i.c = next(t);
    } else if (f == "testp") {
      i.op = Op::testp;
      i.combine = o.has("notanumber") ? 1 : o.has("infinite") ? 2 : 0;
      i.d = operand(Type::pred), i.a = next(t);
    } else {
      fail("instruction " + std::string(opcode));
    }
    want(';');
    emit(i);
  }

  void resolve() {
    for (const auto& [at, name] : branches_) {
      const auto it = labels_.find(name);
      if (it == labels_.end()) fail("label " + name);
      code_->ins[at].imm = it->second;
    }
    Ins end;
    end.op = Op::ret;
    emit(end);
    for (const auto& [name, at] : labels_) code_->ins[at].leader = true;
    for (std::size_t i = 0; i + 1 < code_->ins.size(); ++i)
      if (code_->ins[i].op == Op::bra) code_->ins[i + 1].leader = true;
    code_->ins[0].leader = true;
  }

  // --- register allocation: liveness by blocks, one interval a register, linear scan with exact
  // sizes
  template <typename F>
  void each_use(const Ins& i, F f) const {
    if (i.pred >= 0) f(i.pred);
    if (i.a >= 0) f(i.a);
    if (i.b >= 0) f(i.b);
    if (i.c >= 0) f(i.c);
    if (i.e >= 0 && i.op != Op::setp) f(i.e);
    for (int k = i.list_defs; k < i.list_count; ++k)
      if (code_->lists[i.list + k] >= 0) f(code_->lists[i.list + k]);
  }
  template <typename F>
  void each_def(const Ins& i, F f) const {
    if (i.d >= 0) f(i.d);
    if (i.e >= 0 && i.op == Op::setp) f(i.e);
    for (int k = 0; k < i.list_defs; ++k)
      if (code_->lists[i.list + k] >= 0) f(code_->lists[i.list + k]);
  }
  void allocate() {
    auto& ins = code_->ins;
    const int n = static_cast<int>(ins.size()), regs = static_cast<int>(classes_.size());
    std::vector<int> starts, block_of(n);
    for (int i = 0; i < n; ++i) {
      if (ins[i].leader) starts.push_back(i);
      block_of[i] = static_cast<int>(starts.size()) - 1;
    }
    const int blocks = static_cast<int>(starts.size()), words = (regs + 63) / 64;
    starts.push_back(n);
    std::vector<std::uint64_t> in(static_cast<std::size_t>(blocks) * words), use(in), def(in);
    const auto bit = [&](std::vector<std::uint64_t>& v, int b, int r) -> std::uint64_t& {
      return v[static_cast<std::size_t>(b) * words + r / 64];
    };
    for (int b = 0; b < blocks; ++b)
      for (int i = starts[b]; i < starts[b + 1]; ++i) {
        each_use(ins[i], [&](int r) {
          if (!(bit(def, b, r) >> (r % 64) & 1)) bit(use, b, r) |= 1ull << (r % 64);
        });
        if (ins[i].pred < 0) each_def(ins[i], [&](int r) { bit(def, b, r) |= 1ull << (r % 64); });
      }
    std::vector<std::uint64_t> out(words);
    const auto outgoing = [&](int b) {
      std::fill(out.begin(), out.end(), 0);
      const Ins& last = ins[starts[b + 1] - 1];
      const auto merge = [&](int to) {
        for (int w = 0; w < words; ++w) out[w] |= in[static_cast<std::size_t>(to) * words + w];
      };
      if (last.op == Op::bra) merge(block_of[last.imm]);
      if (!((last.op == Op::bra || last.op == Op::ret) && last.pred < 0) && b + 1 < blocks)
        merge(b + 1);
    };
    for (bool changed = true; changed;) {
      changed = false;
      for (int b = blocks - 1; b >= 0; --b) {
        outgoing(b);
        for (int w = 0; w < words; ++w) {
          std::uint64_t& i = in[static_cast<std::size_t>(b) * words + w];
          const std::uint64_t value = use[static_cast<std::size_t>(b) * words + w] |
                                      (out[w] & ~def[static_cast<std::size_t>(b) * words + w]);
          if (value != i) i = value, changed = true;
        }
      }
    }
    std::vector<int> from(regs, n), to(regs, -1);
    const auto touch = [&](int r, int i) {
      from[r] = std::min(from[r], i), to[r] = std::max(to[r], i);
    };
    for (int b = 0; b < blocks; ++b) {
      outgoing(b);
      for (int w = 0; w < words; ++w) {
        for (std::uint64_t v = in [static_cast<std::size_t>(b) * words + w]; v; v &= v - 1)
          touch(w * 64 + __builtin_ctzll(v), starts[b]);
        for (std::uint64_t v = out[w]; v; v &= v - 1)
          touch(w * 64 + __builtin_ctzll(v), starts[b + 1] - 1);
      }
      for (int i = starts[b]; i < starts[b + 1]; ++i) {
        each_use(ins[i], [&](int r) { touch(r, i); });
        each_def(ins[i], [&](int r) { touch(r, i); });
      }
    }
    for (const int r : fixed_) from[r] = -1, to[r] = n;  // constants and special registers stay
    // The registers of a product under way are not free before wgmma.wait_group.
    for (const Ins& i : ins)
      if (i.op == Op::wgmma)
        for (int k = 0; k < i.list_count; ++k) {
          const int r = code_->lists[i.list + k];
          if (r >= 0) from[r] = -1, to[r] = n;
        }
    std::vector<int> order(regs), place(regs, -1);
    for (int r = 0; r < regs; ++r) order[r] = r;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return from[a] < from[b]; });
    std::vector<std::pair<int, int>> live;  // end, register
    std::map<int, std::vector<int>> spare;  // bytes of a lane -> offsets
    int top = 0;
    for (const int r : order) {
      if (to[r] < 0) continue;
      for (std::size_t k = 0; k < live.size();) {
        if (live[k].first < from[r]) {
          spare[lane_bytes(classes_[live[k].second])].push_back(place[live[k].second]);
          live[k] = live.back();
          live.pop_back();
        } else {
          ++k;
        }
      }
      auto& stack = spare[lane_bytes(classes_[r])];
      if (!stack.empty()) {
        place[r] = stack.back();
        stack.pop_back();
      } else {
        place[r] = top;
        top += 32 * lane_bytes(classes_[r]);
      }
      live.emplace_back(to[r], r);
    }
    code_->register_bytes = top;
    const auto move = [&](int& r) {
      if (r >= 0) r = place[r];
    };
    for (Ins& i : ins) move(i.pred), move(i.d), move(i.a), move(i.b), move(i.c), move(i.e);
    for (int& r : code_->lists) move(r);
    for (Constant& c : code_->constants) move(c.slot);
    for (auto& [slot, name] : code_->specials) move(slot);
  }

  PtxModule& module_;
  Kernel& kernel_;
  std::shared_ptr<Code> code_;
  std::size_t at_ = 0;
  int line_ = 0;
  long shared_ = 0, local_ = 0;
  std::vector<Variable> externs_;
  std::vector<int> extern_constants_, extern_immediates_;
  std::vector<RegClass> classes_;
  std::vector<Scope> scopes_;
  std::vector<std::vector<int>> depth_labels_;
  std::unordered_map<std::string, Symbol> symbols_;
  std::map<std::pair<std::uint64_t, RegClass>, int> constants_;
  std::map<std::string, int> specials_;
  std::vector<int> fixed_;
  std::unordered_map<std::string, int> labels_;
  std::vector<std::pair<int, std::string>> branches_;
};

}  // namespace

bool ptx_decode(PtxModule& module, Kernel& kernel, std::string* error) {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  if (kernel.code) return true;
  try {
    Decoder(module, kernel).run();
  } catch (const Error& e) {
    *error = e.text;
    return false;
  } catch (const std::exception& e) {
    *error = e.what();
    return false;
  }
  return true;
}

}  // namespace vgpu
