// Counts of what kernels do, by kernel and by line of the source: exact, and the same from run to
// run. They are of PTX instructions, before ptxas: it folds moves and parts of addresses, allocates
// registers and spills.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "vgpu/counters/report.h"
#include "vgpu/ptx/instruction.h"
#include "vgpu/ptx/module.h"
#include "vgpu/vgpu.h"

namespace vgpu {

// Of one instruction of a kernel.
struct SiteCounts {
  std::uint64_t executions = 0;  // by warps
  std::uint64_t lanes = 0;       // of all executions together
  std::uint64_t wavefronts = 0, ideal_wavefronts = 0;
  std::uint64_t sectors = 0, ideal_sectors = 0;
  std::uint64_t shared_bytes = 0, global_bytes = 0, other_bytes = 0;  // asked for by lanes

  SiteCounts& operator+=(const SiteCounts& other);
};

// The sectors of global memory that were touched, whoever touched them and however often: what must
// come from or go to DRAM if caches are perfect and hold nothing before.
class Footprint {
 public:
  void touch(std::uint64_t address, std::uint64_t bytes);
  void merge(const Footprint& other);
  std::uint64_t sectors() const;

 private:
  struct Page {
    std::uint64_t bits[2] = {};
  };
  Page& page(std::uint64_t number);
  std::unordered_map<std::uint64_t, Page> pages_;
  std::uint64_t last_number_ = ~0ull;
  Page* last_ = nullptr;
};

// Of one thread of the CPU during a launch.
struct LaunchCounts {
  std::vector<SiteCounts> sites;  // one for each instruction
  Footprint read, written;

  explicit LaunchCounts(std::size_t instructions) : sites(instructions) {}
  void merge(const LaunchCounts& other);
};

// Adds a launch that has ended, if there was counting.
void counters_add(const PtxModule& module, const Kernel& kernel, const Launch& launch,
                  const LaunchCounts& counts);

}  // namespace vgpu
