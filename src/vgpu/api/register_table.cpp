#include "vgpu/api/register_table.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>

#include "vgpu/api/device.h"
#include "vgpu/settings.h"

namespace vgpu {

namespace {

// Names in anonymous namespaces hold two hashes of eight digits, which differ from build to build.
std::string without_hashes(std::string name) {
  for (const std::string before : {"_GLOBAL__N__", "_cu_"}) {
    const std::size_t at = name.find(before);
    if (at == name.npos) return name;
    name.erase(at + before.size(), 8);
  }
  return name;
}

// Lines of compute capability, registers and name.
std::map<std::string, int> read_table() {
  std::map<std::string, int> table;
  const std::string path = env_text("VGPU_REGISTERS", "");
  if (path.empty()) return table;
  std::ifstream file(path);
  int capability = 0, registers = 0;
  for (std::string name; file >> capability >> registers >> name;)
    if (capability == limits().capability) table[without_hashes(name)] = registers;
  if (table.empty()) {
    std::fprintf(stderr, "vgpu: VGPU_REGISTERS=%s: no kernels for %s there\n", path.c_str(),
                 capability_text().c_str());
    std::exit(2);
  }
  return table;
}

const std::map<std::string, int>& table() {
  static const std::map<std::string, int> read = read_table();
  return read;
}

long round_up(long value, long unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

int registers_of(const std::string& kernel) {
  if (table().empty()) return 0;
  const auto found = table().find(without_hashes(kernel));
  return found == table().end() ? 0 : found->second;
}

bool has_register_table() { return !table().empty(); }

long registers_of_block(int registers, long threads) {
  const long warps = round_up(round_up(threads, 32) / 32, 4);
  return warps * round_up(32L * registers, 256);
}

}  // namespace vgpu
