#include "fault.h"

#include <cstdio>

#include "block.h"

namespace vgpu {

std::string hex(std::uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "%#llx", static_cast<unsigned long long>(value));
  return text;
}

namespace {

std::string triple(unsigned x, unsigned y, unsigned z) {
  return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}

}  // namespace

std::string thread_name(const Warp& w, int warp, int lane) {
  const unsigned* const b = w.program->launch->block;
  const unsigned thread = warp * kLanes + lane;
  return "thread " + triple(thread % b[0], thread / b[0] % b[1], thread / b[0] / b[1]);
}

std::string block_name(const Block& block) {
  return "block " + triple(block.id[0], block.id[1], block.id[2]);
}

std::string place_of(const Warp& w, int pc) {
  const Program& p = *w.program;
  const Ins& i = p.code->ins[pc];
  const std::string source = ptx_source(*p.module, *p.code, i.loc);
  return source == "?" ? "PTX line " + std::to_string(i.line) : source;
}

void fault(const Warp& w, const Ins& i, int code, int lane, const std::string& what) {
  const Program& p = *w.program;
  const std::string source = ptx_source(*p.module, *p.code, i.loc);
  throw KernelFault{code, what + "; " + thread_name(w, w.index, lane) + " of " +
                              block_name(*w.block) + (source == "?" ? "" : " at " + source) +
                              ", PTX line " + std::to_string(i.line) + ", kernel " +
                              p.kernel->name};
}

}  // namespace vgpu
