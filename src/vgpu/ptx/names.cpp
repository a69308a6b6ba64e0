#include "vgpu/ptx/names.h"

#include <algorithm>

namespace vgpu::ptx {
namespace {

bool names_word(std::string_view text, std::string_view word) {
  for (std::size_t at = 0; (at = text.find(word, at)) != text.npos; at += word.size()) {
    const std::size_t end = at + word.size();
    if ((at == 0 || !is_word(text[at - 1])) && (end == text.size() || !is_word(text[end])))
      return true;
  }
  return false;
}

// Those that the interpreter fills, and how wide they are.
bool special_class(std::string_view name, RegClass* c) {
  static const std::unordered_map<std::string_view, RegClass> specials = {
      {"%tid.x", RegClass::b32},
      {"%tid.y", RegClass::b32},
      {"%tid.z", RegClass::b32},
      {"%ntid.x", RegClass::b32},
      {"%ntid.y", RegClass::b32},
      {"%ntid.z", RegClass::b32},
      {"%ctaid.x", RegClass::b32},
      {"%ctaid.y", RegClass::b32},
      {"%ctaid.z", RegClass::b32},
      {"%nctaid.x", RegClass::b32},
      {"%nctaid.y", RegClass::b32},
      {"%nctaid.z", RegClass::b32},
      {"%laneid", RegClass::b32},
      {"%warpid", RegClass::b32},
      {"%nwarpid", RegClass::b32},
      {"%lanemask_lt", RegClass::b32},
      {"%lanemask_eq", RegClass::b32},
      {"%lanemask_le", RegClass::b32},
      {"%lanemask_ge", RegClass::b32},
      {"%lanemask_gt", RegClass::b32},
      {"%clusterid.x", RegClass::b32},
      {"%clusterid.y", RegClass::b32},
      {"%clusterid.z", RegClass::b32},
      {"%nclusterid.x", RegClass::b32},
      {"%nclusterid.y", RegClass::b32},
      {"%nclusterid.z", RegClass::b32},
      {"%cluster_ctaid.x", RegClass::b32},
      {"%cluster_ctaid.y", RegClass::b32},
      {"%cluster_ctaid.z", RegClass::b32},
      {"%cluster_nctaid.x", RegClass::b32},
      {"%cluster_nctaid.y", RegClass::b32},
      {"%cluster_nctaid.z", RegClass::b32},
      {"%cluster_ctarank", RegClass::b32},
      {"%cluster_nctarank", RegClass::b32},
      {"%is_explicit_cluster", RegClass::pred},
  };
  const auto it = specials.find(name);
  if (it == specials.end()) return false;
  *c = it->second;
  return true;
}

// The kernel's text and those of the functions that it calls, and that these call.
std::vector<std::string_view> reachable_bodies(const PtxModule& module, const Kernel& kernel) {
  std::vector<std::string_view> bodies = {kernel.body};
  for (std::size_t k = 0; k < bodies.size(); ++k)
    for (const auto& [name, f] : module.functions)
      if (f.defined && names_word(bodies[k], name) &&
          std::find(bodies.begin(), bodies.end(), f.body) == bodies.end())
        bodies.push_back(f.body);
  return bodies;
}

}  // namespace

RegClass class_of(Type type) {
  if (type == Type::pred) return RegClass::pred;
  const int bytes = size_of(type);
  return bytes == 8 ? RegClass::b64 : bytes == 4 ? RegClass::b32 : RegClass::b16;
}

int lane_bytes(RegClass c) { return c == RegClass::b64 ? 8 : c == RegClass::b16 ? 2 : 4; }

Names::Names(const PtxModule& module, const Kernel& kernel, Code& code) : code_(code) {
  for (const Param& p : kernel.params) symbols_[p.name] = {Space::param, p.offset};
  for (const auto& [name, g] : module.globals)
    symbols_[name] = {Space::global, static_cast<std::int64_t>(g.address)};
  const std::vector<std::string_view> bodies = reachable_bodies(module, kernel);
  for (const SharedVariable& v : module.shared) {
    const auto names = [&](std::string_view body) { return names_word(body, v.name); };
    if (std::none_of(bodies.begin(), bodies.end(), names)) continue;
    if (v.external) {
      symbols_[v.name] = {Space::shared, 0, true};
      dynamic_align_ = std::max(dynamic_align_, v.align);
    } else {
      add_shared(v.name, v.bytes, v.align);
    }
  }
  scopes_.push_back({-1, {}, {}, {}});
}

void Names::open_scope() {
  scopes_.push_back({scope_, {}, {}, {}});
  scope_ = static_cast<int>(scopes_.size()) - 1;
}
void Names::close_scope() { scope_ = scopes_[scope_].parent; }

void Names::declare_registers(std::string_view prefix, Type type) {
  scopes_[scope_].prefixes.emplace_back(prefix, class_of(type));
}
void Names::declare_register(std::string_view name, Type type) {
  scopes_[scope_].registers.emplace(name, make_register(class_of(type)));
}

void Names::add_shared(std::string_view name, long bytes, int align) {
  shared_ = round_up(shared_, align);
  symbols_[name] = {Space::shared, shared_};
  shared_ += bytes;
}
void Names::declare_shared(const Variable& v) { add_shared(v.name, v.bytes, v.align); }
void Names::declare_local(const Variable& v) {
  local_ = round_up(local_, v.align);
  symbols_[v.name] = {Space::local, local_};
  local_ += v.bytes;
}

void Names::begin_call(const DeviceFunction& f, const std::vector<std::string_view>& results,
                       const std::vector<std::string_view>& arguments, const Lexer& text) {
  symbols_of_callers_.push_back(symbols_);
  bind(f, f.results, results, text);
  bind(f, f.params, arguments, text);
  open_scope();
}
void Names::bind(const DeviceFunction& f, const std::vector<std::string>& formal,
                 const std::vector<std::string_view>& actual, const Lexer& text) {
  if (formal.size() != actual.size())
    text.fail("a call of " + f.name + " with " + std::to_string(actual.size()) +
              " parameters or results instead of " + std::to_string(formal.size()));
  for (std::size_t k = 0; k < formal.size(); ++k) {
    const Symbol* const variable = find_symbol(actual[k]);
    if (!variable || variable->space != Space::local)
      text.fail("a call of " + f.name + " with " + std::string(actual[k]) +
                ", which is no .param variable");
    symbols_[formal[k]] = *variable;
  }
}
void Names::end_call() {
  close_scope();
  symbols_ = std::move(symbols_of_callers_.back());
  symbols_of_callers_.pop_back();
}

void Names::declare_label(std::string_view name, int instruction, const Lexer& text) {
  if (!scopes_[scope_].labels.emplace(name, instruction).second)
    text.fail("label " + std::string(name) + " again");
}
void Names::branch(std::string_view label, int instruction) {
  branches_.push_back({label, instruction, scope_});
}

int Names::make_register(RegClass c) {
  classes_.push_back(c);
  return static_cast<int>(classes_.size()) - 1;
}

int Names::find_register(std::string_view name) {
  for (int s = scope_; s >= 0; s = scopes_[s].parent) {
    Scope& scope = scopes_[s];
    if (const auto it = scope.registers.find(name); it != scope.registers.end()) return it->second;
    for (const auto& [prefix, c] : scope.prefixes)
      if (name.size() > prefix.size() && name.starts_with(prefix) &&
          name.find_first_not_of("0123456789", prefix.size()) == name.npos)
        return scope.registers[name] = make_register(c);
  }
  return -1;
}

const Symbol* Names::find_symbol(std::string_view name) const {
  const auto it = symbols_.find(name);
  return it == symbols_.end() ? nullptr : &it->second;
}

int Names::constant(std::uint64_t bits, RegClass c) {
  const auto [it, is_new] = constants_.try_emplace({bits, c}, -1);
  if (is_new) {
    it->second = make_register(c);
    code_.constants.push_back({it->second, bits, lane_bytes(c)});
    fixed_.push_back(it->second);
  }
  return it->second;
}

int Names::special(std::string_view name) {
  if (const auto it = specials_.find(name); it != specials_.end()) return it->second;
  RegClass c;
  if (!special_class(name, &c)) return -1;
  const int number = make_register(c);
  code_.specials.emplace_back(number, std::string(name));
  fixed_.push_back(number);
  return specials_[name] = number;
}

int Names::address_of(const Symbol& symbol, std::int64_t offset, RegClass c) {
  if (!symbol.dynamic) return constant(symbol.address + offset, c);
  const int number = make_register(c);
  dynamic_constants_.push_back(static_cast<int>(code_.constants.size()));
  code_.constants.push_back({number, static_cast<std::uint64_t>(offset), lane_bytes(c)});
  fixed_.push_back(number);
  return number;
}

int Names::target_of(const Branch& branch) const {
  for (int s = branch.scope; s >= 0; s = scopes_[s].parent) {
    const auto it = scopes_[s].labels.find(branch.label);
    if (it != scopes_[s].labels.end()) return it->second;
  }
  throw Error("line " + std::to_string(code_.ins[branch.instruction].line) + ": no label " +
              std::string(branch.label));
}

void Names::resolve() {
  for (const Branch& b : branches_) code_.ins[b.instruction].imm = target_of(b);
  for (const Scope& s : scopes_)
    for (const auto& [name, at] : s.labels) code_.ins[at].leader = true;
  shared_ = round_up(shared_, dynamic_align_);  // as ptxas does
  for (const int c : dynamic_constants_) code_.constants[c].bits += shared_;
  for (const int i : dynamic_immediates_) code_.ins[i].imm += shared_;
  code_.shared_bytes = static_cast<int>(shared_);
  code_.local_bytes = static_cast<int>(local_);
  code_.virtual_registers = static_cast<int>(classes_.size());
}

}  // namespace vgpu::ptx
