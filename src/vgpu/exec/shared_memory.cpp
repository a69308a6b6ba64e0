// Races: two accesses of a word, one of them a write, that no barrier puts in order.
#include "shared_memory.h"

#include <algorithm>
#include <cstring>

#include "cluster.h"
#include "fault.h"
#include "types.h"

namespace vgpu {

void SharedMemory::resize(std::size_t size, unsigned warps) {
  words = (size + 3) / 4 + 4;
  bytes.resize(4 * words);
  written.resize(words);
  writer.resize(words);
  read.resize(words);
  read_by.resize(words * warps);
  guest_reads.clear();
}

void SharedMemory::forget() {
  std::fill(written.begin(), written.end(), 0);
  std::fill(read.begin(), read.end(), 0);
  std::fill(read_by.begin(), read_by.end(), 0);
  guest_reads.clear();
}

namespace {

// Which of the bytes of a word are in [begin, end).
unsigned bytes_of_word(unsigned word, unsigned begin, unsigned end) {
  const unsigned from = std::max(begin, 4 * word) - 4 * word,
                 to = std::min(end, 4 * word + 4) - 4 * word;
  return ((1u << to) - 1) & ~((1u << from) - 1);
}

}  // namespace

void note_write(SharedMemory& m, unsigned begin, unsigned end, u32 stamp, int column, int pc) {
  for (unsigned word = begin / 4; word < (end + 3) / 4; ++word) {
    m.written[word] = stamp;
    m.writer[word] = {static_cast<s16>(column), static_cast<u16>(bytes_of_word(word, begin, end)),
                      pc};
  }
}

namespace {

// Who made an access, for a message.
std::string agent(const Warp& w, int column, int lane, int pc) {
  const std::string at = pc >= 0 ? " at " + place_of(w, pc) : "";
  const Block& block = *w.block->cluster.blocks[rank_of(column)];
  const int local = column % kColumns;
  if (local >= kFirstProductColumn)
    return "the wgmma of warp " + std::to_string(local - kFirstProductColumn) + of_block(w, block) +
           at;
  if (local >= kFirstCopyColumn) return "the copy" + at;
  return thread_name(w, local, lane) + of_block(w, block) + at;
}
[[noreturn]] void race(const Warp& w, const Ins& i, const Block& block, unsigned address, int lane,
                       const char* what, const std::string& other) {
  fault(w, i, kLaunchFailed, lane,
        "race in shared memory" + of_block(w, block) + " at byte " + std::to_string(address) +
            ": " + what + " " + other + ", with no barrier between");
}
void check_arrived(const Warp& w, const Ins& i, const Block& block, unsigned address, int lane,
                   const char* access) {
  const SharedMemory& m = block.shared;
  if (m.written[address / 4] != kUnderWay) return;
  const int column = m.writer[address / 4].column;
  const std::string copy =
      is_warp(column) ? "the cp.async of warp " + std::to_string(column % kColumns) + " at "
                      : std::string("the bulk copy at ");
  fault(w, i, kLaunchFailed, lane,
        "shared memory" + of_block(w, block) + " at byte " + std::to_string(address) + " is " +
            access + " while " + copy + place_of(w, m.writer[address / 4].pc) +
            " to it is under way: it has not been waited for");
}

// What all lanes of the warp know of the accesses to a block's memory.
Tick floor_of(const Warp& w, const Block& block) {
  return &block == w.block ? w.order.floor : block.clock.first - 1;
}

}  // namespace

void check_read(Warp& w, const Ins& i, Block& block, unsigned address, unsigned mask, int lane) {
  SharedMemory& m = block.shared;
  const unsigned word = address / 4;
  const u32 stamp = m.written[word];
  check_arrived(w, i, block, address, lane, "read");
  if (tick_of(stamp) < block.clock.first)
    fault(w, i, kLaunchFailed, lane,
          "shared memory" + of_block(w, block) + " at byte " + std::to_string(address) +
              " is read before it was written");
  const int column = m.writer[word].column;
  if (tick_of(stamp) > floor_of(w, block) && (m.writer[word].bytes & mask) &&
      !knows(w, lane, column, lane_of(stamp), tick_of(stamp)))
    race(w, i, block, address, lane, "read here, written by",
         agent(w, column, lane_of(stamp), m.writer[word].pc));
}

namespace {

void check_no_guest_reader(Warp& w, const Ins& i, Block& block, unsigned address, int lane) {
  const auto found = block.shared.guest_reads.find(address / 4);
  if (found == block.shared.guest_reads.end()) return;
  for (const SharedMemory::GuestRead& r : found->second)
    if (r.tick >= block.clock.first && !knows(w, lane, r.column, r.lane, r.tick))
      race(w, i, block, address, lane, "written here, read by", agent(w, r.column, r.lane, r.pc));
}

// Reads of a part of a word by some and writes of another by others are no race; as it is not
// noted which part was read, writes of a part pass.
void check_no_reader(Warp& w, const Ins& i, Block& block, unsigned address, int lane) {
  SharedMemory& m = block.shared;
  const unsigned word = address / 4;
  const Tick floor = floor_of(w, block);
  if (!m.guest_reads.empty()) check_no_guest_reader(w, i, block, address, lane);
  if (m.read[word] <= floor) return;
  for (int v = 0; v < block.warp_count; ++v) {
    const u32 stamp = m.reads_of(v)[word];
    const int column = block.warps[v].column;
    if (tick_of(stamp) > floor && !knows(w, lane, column, lane_of(stamp), tick_of(stamp)))
      race(w, i, block, address, lane, "written here, read by",
           agent(w, column, lane_of(stamp), -1));
  }
}

void note_read(Warp& w, Block& block, unsigned word, int lane) {
  SharedMemory& m = block.shared;
  const Tick now = block.clock.now;
  m.read[word] = now;
  if (&block == w.block) {
    m.reads_of(w.index)[word] = stamp_of(now, lane);
    return;
  }
  std::vector<SharedMemory::GuestRead>& reads = m.guest_reads[word];
  const auto mine = std::find_if(reads.begin(), reads.end(), [&](const auto& r) {
    return r.column == w.column && r.lane == lane;
  });
  if (mine == reads.end())
    reads.push_back({w.column, lane, w.pc, now});
  else
    *mine = {w.column, lane, w.pc, now};
}

}  // namespace

void check_write(Warp& w, const Ins& i, Block& block, unsigned address, unsigned mask, int lane,
                 bool atomic) {
  SharedMemory& m = block.shared;
  const unsigned word = address / 4;
  const u32 stamp = m.written[word];
  check_arrived(w, i, block, address, lane, "written");
  const int column = m.writer[word].column;
  if (tick_of(stamp) > floor_of(w, block) && (m.writer[word].bytes & mask) &&
      !(atomic && is_atomic(stamp)) && !knows(w, lane, column, lane_of(stamp), tick_of(stamp)))
    race(w, i, block, address, lane, "written here, and by",
         agent(w, column, lane_of(stamp), m.writer[word].pc));
  if (mask == 15) check_no_reader(w, i, block, address, lane);
}

void note_store(Warp& w, const char* to, unsigned size, int lane) {
  for (const std::unique_ptr<Block>& block : w.block->cluster.blocks) {
    SharedMemory& m = block->shared;
    const auto offset = to - m.bytes.data();
    if (offset < 0 || offset >= static_cast<std::ptrdiff_t>(m.bytes.size())) continue;
    note_write(m, static_cast<unsigned>(offset), static_cast<unsigned>(offset) + size,
               stamp_of(block->clock.now, lane), w.column, w.pc);
  }
}

char* shared_bytes(Warp& w, const Ins& i, Block& block, u64 address, unsigned size, int lane,
                   Access access) {
  SharedMemory& m = block.shared;
  const bool reads = access == Access::read || access == Access::look;
  if (address + size > block.shared_size)
    fault(w, i, kIllegalAddress, lane,
          std::string(reads ? "read" : "write") + " of " + std::to_string(size) +
              " bytes of shared memory" + of_block(w, block) + " at byte " +
              std::to_string(address) + "; the block has " + std::to_string(block.shared_size));
  const unsigned begin = static_cast<unsigned>(address), end = begin + size;
  if (!reads) check_asynchronous_reads(w, i, block, begin, end, lane);
  const Tick now = block.clock.now;
  for (unsigned word = begin / 4; word < (end + 3) / 4; ++word) {
    const unsigned mask = bytes_of_word(word, begin, end);
    if (reads)
      check_read(w, i, block, 4 * word, mask, lane);
    else
      check_write(w, i, block, 4 * word, mask, lane, access == Access::atomic);
    if (access == Access::read) note_read(w, block, word, lane);
  }
  if (access != Access::look) note_access(block, w.column);
  if (access == Access::write || access == Access::atomic)
    note_write(m, begin, end, stamp_of(now, lane) | (access == Access::atomic ? kAtomic : 0),
               w.column, w.pc);
  if (&block != w.block && access != Access::copy) note_guest(w, block, lane);
  return m.bytes.data() + address;
}

}  // namespace vgpu
