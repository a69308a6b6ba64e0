// A PTX module: its kernels, its variables in global and constant memory, and the files that its
// .loc directives name.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace vgpu {

// The PTX text of an image: PTX itself, a fatbin, or a __fatBinC wrapper around one. Of a fatbin's
// PTX, the newest that the device takes. Empty, with *error set, where there is none.
std::string image_ptx(const void* image, std::string* error);

struct Param {
  std::string name;
  int offset, size;  // bytes
};

struct Code;  // the decoded instructions (instruction.h)

struct Kernel {
  std::string name;
  std::string_view body;  // the text between the braces
  std::vector<Param> params;
  int param_bytes = 0;
  int max_threads = 1024;        // of a block: .maxntid or .reqntid
  int required_block[3] = {};    // .reqntid: the dimensions, exactly; zeros without
  int required_cluster[3] = {};  // .reqnctapercluster; zeros without
  int static_shared = 0;         // known once decoded
  int local_bytes = 0;
  int line = 0;  // of the text, where the body begins
  std::shared_ptr<Code> code;
};

// A device function that the compiler did not inline: decoded where it is called, as if it had.
struct DeviceFunction {
  std::string name;
  std::string_view body;
  bool defined = false;       // has a body
  bool in_registers = false;  // parameters or results that are registers
  std::vector<std::string> results, params;
  int line = 0;  // of the text, where the body begins
};

struct Global {
  std::uint64_t address = 0, size = 0;
};

// A variable of the module in shared memory. Kernels that name it have one each.
struct SharedVariable {
  std::string name;
  long bytes = 0;
  int align = 1;
  bool external = false;  // .extern: dynamic shared memory, whose size is the launch's
};

struct PtxModule {
  std::string text;  // without its comments
  int target = 0;    // 90 of sm_90a
  std::map<std::string, Kernel, std::less<>> kernels;
  std::map<std::string, Global, std::less<>> globals;
  std::vector<SharedVariable> shared;
  std::map<int, std::string> files;                               // of .file
  std::map<std::string, std::string, std::less<>> debug_strings;  // label -> text, of .debug_str
  int device = 0;
  std::map<std::string, DeviceFunction, std::less<>> functions;
};

// Finds the kernels and makes the variables, on `device`. Null, with *error set, for what is no
// PTX.
std::shared_ptr<PtxModule> ptx_module(std::string text, int device, std::string* error);

// Decodes a kernel, unless that has been done: kernel.code is then set. False with *error set,
// which says the line of the text, for what this virtual GPU does not know.
bool ptx_decode(PtxModule& module, Kernel& kernel, std::string* error);

// "convnet::lrn_kernel(...)" of a mangled name; other names as they are.
std::string demangled(const std::string& name);

// "conv.cu:29" of the module's location number `at`, and, where the code was inlined, the calls
// that it came by: "warp.cuh:17 (global_thread), inlined at dropout.cu:29".
std::string ptx_source(const PtxModule& module, const Code& code, int at);

}  // namespace vgpu
