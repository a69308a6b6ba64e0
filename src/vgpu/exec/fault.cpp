#include "fault.h"

#include <cstdio>

#include "block.h"

namespace vgpu {

std::string hex(std::uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "%#llx", static_cast<unsigned long long>(value));
  return text;
}

void fault(const Warp& w, const Ins& i, int code, int lane, const std::string& what) {
  const Program& p = *w.program;
  char text[1024];
  const unsigned thread = w.index * kLanes + lane;
  const unsigned* b = p.launch->block;
  const Location at = i.loc >= 0 && i.loc < static_cast<int>(p.code->locations.size())
                          ? p.code->locations[i.loc]
                          : Location{};
  const auto file = p.module->files.find(at.file);
  std::snprintf(text, sizeof text,
                "%s, thread (%u, %u, %u) of block (%u, %u, %u), %s:%d, PTX line %d, kernel %s",
                what.c_str(), thread % b[0], thread / b[0] % b[1], thread / b[0] / b[1],
                w.block->id[0], w.block->id[1], w.block->id[2],
                file == p.module->files.end() ? "?" : file->second.c_str(), at.line, i.line,
                p.kernel->name.c_str());
  throw KernelFault{code, text};
}

}  // namespace vgpu
