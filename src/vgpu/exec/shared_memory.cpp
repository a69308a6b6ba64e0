// Races: two accesses of a word, one of them a write, that no barrier puts in order.
#include "shared_memory.h"

#include <algorithm>
#include <cstring>

#include "block.h"
#include "fault.h"
#include "types.h"

namespace vgpu {

void SharedMemory::resize(std::size_t size, unsigned warps) {
  words = (size + 3) / 4 + 4;
  bytes.resize(4 * words);
  written.resize(words);
  writer.resize(words);
  writer_pc.resize(words);
  read.resize(words);
  read_by.resize(words * warps);
}

void SharedMemory::forget() {
  std::fill(written.begin(), written.end(), 0);
  std::fill(read.begin(), read.end(), 0);
  std::fill(read_by.begin(), read_by.end(), 0);
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
    m.writer[word] = static_cast<u16>(column | bytes_of_word(word, begin, end) << 8);
    m.writer_pc[word] = pc;
  }
}

namespace {

// Who made an access, for a message.
std::string agent(const Warp& w, int column, int lane, int pc) {
  const std::string at = pc >= 0 ? " at " + place_of(w, pc) : "";
  if (column >= kFirstProductColumn)
    return "the wgmma of warp " + std::to_string(column - kFirstProductColumn) + at;
  if (column >= kFirstCopyColumn) return "the copy" + at;
  return thread_name(w, column, lane) + at;
}
[[noreturn]] void race(const Warp& w, const Ins& i, unsigned address, int lane, const char* what,
                       const std::string& other) {
  fault(w, i, kLaunchFailed, lane,
        "race in shared memory at byte " + std::to_string(address) + ": " + what + " " + other +
            ", with no barrier between");
}
void check_arrived(const Warp& w, const Ins& i, unsigned address, int lane, const char* access) {
  const SharedMemory& m = w.block->shared;
  if (m.written[address / 4] != kUnderWay) return;
  const int column = m.writer[address / 4] & 255;
  const std::string copy = column < kWarpColumns
                               ? "the cp.async of warp " + std::to_string(column) + " at "
                               : std::string("the bulk copy at ");
  fault(w, i, kLaunchFailed, lane,
        std::string("shared memory at byte ") + std::to_string(address) + " is " + access +
            " while " + copy + place_of(w, m.writer_pc[address / 4]) +
            " to it is under way: it has not been waited for");
}

}  // namespace

void check_read(Warp& w, const Ins& i, unsigned address, unsigned mask, int lane) {
  SharedMemory& m = w.block->shared;
  const unsigned word = address / 4;
  const u32 stamp = m.written[word];
  check_arrived(w, i, address, lane, "read");
  if (tick_of(stamp) < w.block->clock.first)
    fault(w, i, kLaunchFailed, lane,
          "shared memory at byte " + std::to_string(address) + " is read before it was written");
  const int column = m.writer[word] & 255;
  if (tick_of(stamp) > w.order.floor && (m.writer[word] >> 8 & mask) &&
      !knows(w, lane, column, lane_of(stamp), tick_of(stamp)))
    race(w, i, address, lane, "read here, written by",
         agent(w, column, lane_of(stamp), m.writer_pc[word]));
}

namespace {

// Reads of a part of a word by some and writes of another by others are no race; as it is not
// noted which part was read, writes of a part pass.
void check_no_reader(Warp& w, const Ins& i, unsigned address, int lane) {
  SharedMemory& m = w.block->shared;
  const unsigned word = address / 4;
  if (m.read[word] <= w.order.floor) return;
  for (int v = 0; v < w.block->warp_count; ++v) {
    const u32 stamp = m.reads_of(v)[word];
    if (tick_of(stamp) > w.order.floor && !knows(w, lane, v, lane_of(stamp), tick_of(stamp)))
      race(w, i, address, lane, "written here, read by", agent(w, v, lane_of(stamp), -1));
  }
}

}  // namespace

void check_write(Warp& w, const Ins& i, unsigned address, unsigned mask, int lane, bool atomic) {
  SharedMemory& m = w.block->shared;
  const unsigned word = address / 4;
  const u32 stamp = m.written[word];
  check_arrived(w, i, address, lane, "written");
  const int column = m.writer[word] & 255;
  if (tick_of(stamp) > w.order.floor && (m.writer[word] >> 8 & mask) &&
      !(atomic && is_atomic(stamp)) && !knows(w, lane, column, lane_of(stamp), tick_of(stamp)))
    race(w, i, address, lane, "written here, and by",
         agent(w, column, lane_of(stamp), m.writer_pc[word]));
  if (mask == 15) check_no_reader(w, i, address, lane);
}

char* shared_bytes(Warp& w, const Ins& i, u64 address, unsigned size, int lane, Access access) {
  SharedMemory& m = w.block->shared;
  const bool reads = access == Access::read || access == Access::look;
  if (address + size > w.block->shared_size)
    fault(w, i, kIllegalAddress, lane,
          std::string(reads ? "read" : "write") + " of " + std::to_string(size) +
              " bytes of shared memory at byte " + std::to_string(address) + "; the block has " +
              std::to_string(w.block->shared_size));
  const unsigned begin = static_cast<unsigned>(address), end = begin + size;
  if (!reads) check_operands_of_products(w, i, begin, end, lane);
  BlockClock& clock = w.block->clock;
  for (unsigned word = begin / 4; word < (end + 3) / 4; ++word) {
    const unsigned mask = bytes_of_word(word, begin, end);
    if (reads)
      check_read(w, i, 4 * word, mask, lane);
    else
      check_write(w, i, 4 * word, mask, lane, access == Access::atomic);
    if (access == Access::read) {
      m.read[word] = clock.now;
      m.reads_of(w.index)[word] = stamp_of(clock.now, lane);
    }
  }
  if (access != Access::look) clock.last[w.index] = clock.now;
  if (access == Access::write || access == Access::atomic)
    note_write(m, begin, end, stamp_of(clock.now, lane) | (access == Access::atomic ? kAtomic : 0),
               w.index, w.pc);
  return m.bytes.data() + address;
}

}  // namespace vgpu
