#include "vgpu/counters/counters.h"

#include <array>
#include <bit>
#include <map>
#include <mutex>

#include "vgpu/api/device.h"
#include "vgpu/api/register_table.h"
#include "vgpu/counters/json.h"
#include "vgpu/counters/kinds.h"
#include "vgpu/settings.h"

namespace vgpu {

SiteCounts& SiteCounts::operator+=(const SiteCounts& o) {
  executions += o.executions, lanes += o.lanes;
  wavefronts += o.wavefronts, ideal_wavefronts += o.ideal_wavefronts;
  sectors += o.sectors, ideal_sectors += o.ideal_sectors;
  shared_bytes += o.shared_bytes, global_bytes += o.global_bytes, other_bytes += o.other_bytes;
  return *this;
}

// A page is 128 sectors.
Footprint::Page& Footprint::page(std::uint64_t number) {
  if (number != last_number_) last_ = &pages_[number], last_number_ = number;
  return *last_;
}
void Footprint::touch(std::uint64_t address, std::uint64_t bytes) {
  for (std::uint64_t s = address / 32; s <= (address + bytes - 1) / 32; ++s)
    page(s / 128).bits[s / 64 % 2] |= 1ull << s % 64;
}
void Footprint::merge(const Footprint& other) {
  for (const auto& [number, bits] : other.pages_)
    for (int k = 0; k < 2; ++k) page(number).bits[k] |= bits.bits[k];
}
std::uint64_t Footprint::sectors() const {
  std::uint64_t count = 0;
  for (const auto& [number, page] : pages_)
    count += std::popcount(page.bits[0]) + std::popcount(page.bits[1]);
  return count;
}

void LaunchCounts::merge(const LaunchCounts& other) {
  for (std::size_t k = 0; k < sites.size(); ++k) sites[k] += other.sites[k];
  read.merge(other.read);
  written.merge(other.written);
}

namespace {

// Counts of several instructions together: of a line, or of a kernel.
struct Totals {
  std::array<std::uint64_t, kKinds> instructions = {};
  std::uint64_t float_flops = 0, tf32_flops = 0, bf16_flops = 0;
  SiteCounts sites;

  void add(const Ins& i, const SiteCounts& counts) {
    instructions[static_cast<int>(kind_of(i))] += counts.executions;
    if (is_tensor(i))
      (i.type2 == Type::bf16 ? bf16_flops : tf32_flops) += flops_of(i) * counts.executions;
    else
      float_flops += flops_of(i) * counts.lanes;
    sites += counts;
  }
};

struct BlockShape {
  unsigned threads, shared_bytes;
  auto operator<=>(const BlockShape&) const = default;
};
struct Grids {
  std::uint64_t launches = 0, blocks = 0;
};
struct KernelCounts {
  std::uint64_t launches = 0, blocks = 0, warps = 0;
  std::uint64_t sectors_read = 0, sectors_written = 0;  // footprints of the launches, added up
  std::map<BlockShape, Grids> shapes;
  Totals totals;
  std::map<std::string, Totals> lines;
};

struct Counters {
  std::mutex mutex;
  bool on = env("VGPU_COUNTERS", 0) != 0;
  std::map<std::string, KernelCounts> kernels;
};
Counters& counters() {
  static Counters* const the = new Counters;  // never destroyed: launches may end at exit
  return *the;
}

void write(Json& json, const Totals& t) {
  json.open("instructions", '{');
  for (int k = 0; k < kKinds; ++k)
    if (t.instructions[k]) json.number(name_of(static_cast<Kind>(k)), t.instructions[k]);
  json.close('}');
  json.number("warp_instructions", t.sites.executions);
  json.number("thread_instructions", t.sites.lanes);
  json.number("float_flops", t.float_flops);
  json.number("tf32_flops", t.tf32_flops);
  json.number("bf16_flops", t.bf16_flops);
  json.number("shared_wavefronts", t.sites.wavefronts);
  json.number("shared_wavefronts_ideal", t.sites.ideal_wavefronts);
  json.number("global_sectors", t.sites.sectors);
  json.number("global_sectors_ideal", t.sites.ideal_sectors);
  json.number("shared_bytes", t.sites.shared_bytes);
  json.number("global_bytes", t.sites.global_bytes);
  json.number("other_bytes", t.sites.other_bytes);
}

}  // namespace

bool counting() { return counters().on; }
void counters_start() {
  const std::lock_guard lock(counters().mutex);
  counters().kernels.clear();
  counters().on = true;
}
void counters_stop() { counters().on = false; }

void counters_add(const PtxModule& module, const Kernel& kernel, const Launch& launch,
                  const LaunchCounts& counts) {
  const Code& code = *kernel.code;
  const std::lock_guard lock(counters().mutex);
  KernelCounts& k = counters().kernels[kernel.name];
  const std::uint64_t blocks = std::uint64_t{launch.grid[0]} * launch.grid[1] * launch.grid[2];
  const unsigned threads = launch.block[0] * launch.block[1] * launch.block[2];
  ++k.launches;
  Grids& grids = k.shapes[{threads, kernel.static_shared + launch.dynamic_shared}];
  ++grids.launches;
  grids.blocks += blocks;
  k.blocks += blocks;
  k.warps += blocks * ((threads + 31) / 32);
  k.sectors_read += counts.read.sectors();
  k.sectors_written += counts.written.sectors();
  std::map<int, Totals*> lines;
  for (std::size_t at = 0; at < counts.sites.size(); ++at) {
    if (!counts.sites[at].executions) continue;
    const Ins& i = code.ins[at];
    Totals*& line = lines[i.loc];
    if (!line) line = &k.lines[ptx_source(module, code, i.loc)];
    line->add(i, counts.sites[at]);
    k.totals.add(i, counts.sites[at]);
  }
}

std::string counters_json() {
  const std::lock_guard lock(counters().mutex);
  Json json;
  json.open(nullptr, '[');
  for (const auto& [name, k] : counters().kernels) {
    json.open(nullptr, '{');
    json.text("kernel", demangled(name));
    json.text("symbol", name);
    json.number("launches", k.launches);
    json.number("blocks", k.blocks);
    json.number("warps", k.warps);
    const int registers = registers_of(name);
    if (registers) json.number("registers", registers);
    json.open("block_shapes", '[');
    for (const auto& [shape, grids] : k.shapes) {
      json.open(nullptr, '{');
      json.number("threads", shape.threads);
      json.number("shared_bytes", shape.shared_bytes);
      json.number("launches", grids.launches);
      json.number("blocks", grids.blocks);
      if (registers)
        json.number("blocks_per_sm", resident_blocks(static_cast<int>(shape.threads),
                                                     shape.shared_bytes, registers));
      json.close('}');
    }
    json.close(']');
    json.number("dram_read_bytes", 32 * k.sectors_read);
    json.number("dram_write_bytes", 32 * k.sectors_written);
    write(json, k.totals);
    json.open("lines", '[');
    for (const auto& [line, totals] : k.lines) {
      json.open(nullptr, '{');
      json.text("source", line);
      write(json, totals);
      json.close('}');
    }
    json.close(']');
    json.close('}');
  }
  json.close(']');
  return json.text();
}

}  // namespace vgpu
