// What the names in a kernel mean: registers, parameters, variables, special registers and labels,
// by scope; and the virtual registers, which are numbers until registers.h gives them places.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "vgpu/ptx/lexer.h"
#include "vgpu/ptx/module.h"
#include "vgpu/ptx/variable.h"

namespace vgpu::ptx {

enum class RegClass : std::uint8_t { pred, b16, b32, b64 };
RegClass class_of(Type type);
int lane_bytes(RegClass c);  // of a register's lane: 4 for a predicate, which is a mask

// A variable that is not in registers.
struct Symbol {
  Space space;
  std::int64_t address;
  bool dynamic = false;  // .extern .shared: an offset from the end of the static shared memory
};

class Names {
 public:
  // Parameters, and those variables of the module that the kernel can see.
  Names(const PtxModule& module, const Kernel& kernel, Code& code);

  void open_scope();
  void close_scope();

  void declare_registers(std::string_view prefix, Type type);  // %r<12>
  void declare_register(std::string_view name, Type type);
  void declare_shared(const Variable& v);
  void declare_local(const Variable& v);
  // Of a function that is called: its parameters and results are these variables, and nothing that
  // it declares is known outside.
  void begin_call(const DeviceFunction& f, const std::vector<std::string_view>& results,
                  const std::vector<std::string_view>& arguments, const Lexer& text);
  void end_call();
  void declare_label(std::string_view name, int instruction, const Lexer& text);
  void branch(std::string_view label, int instruction);

  int make_register(RegClass c);
  int find_register(std::string_view name);  // -1 where no register is called so
  const Symbol* find_symbol(std::string_view name) const;
  int constant(std::uint64_t bits, RegClass c);  // the register that holds it in every lane
  int special(std::string_view name);            // of %tid.x; -1 where there is none of this name
  // The register that holds the address of a variable, plus an offset.
  int address_of(const Symbol& symbol, std::int64_t offset, RegClass c);
  // Says that instruction number `at` has an offset in dynamic shared memory as its immediate.
  void immediate_is_dynamic(int at) { dynamic_immediates_.push_back(at); }
  RegClass register_class(int number) const { return classes_[number]; }

  // At the end: targets of branches, places of dynamic shared memory, sizes.
  void resolve();
  const std::vector<RegClass>& classes() const { return classes_; }
  // Constants and special registers, whose values stay for the whole kernel.
  const std::vector<int>& fixed() const { return fixed_; }

 private:
  struct Scope {
    int parent;
    std::unordered_map<std::string_view, int> registers;
    std::vector<std::pair<std::string_view, RegClass>> prefixes;
    std::unordered_map<std::string_view, int> labels;
  };
  struct Branch {
    std::string_view label;
    int instruction, scope;
  };
  void add_shared(std::string_view name, long bytes, int align);
  void bind(const DeviceFunction& f, const std::vector<std::string>& formal,
            const std::vector<std::string_view>& actual, const Lexer& text);
  int target_of(const Branch& branch) const;

  Code& code_;
  std::vector<Scope> scopes_;
  int scope_ = 0;
  std::unordered_map<std::string_view, Symbol> symbols_;
  std::vector<std::unordered_map<std::string_view, Symbol>> symbols_of_callers_;
  std::vector<RegClass> classes_;
  std::map<std::pair<std::uint64_t, RegClass>, int> constants_;
  std::map<std::string_view, int> specials_;
  std::vector<int> fixed_;
  std::vector<Branch> branches_;
  long shared_ = 0, local_ = 0;
  int dynamic_align_ = 1;
  std::vector<int> dynamic_constants_, dynamic_immediates_;
};

}  // namespace vgpu::ptx
