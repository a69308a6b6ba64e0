// The shared memory of a block, and for each of its words who wrote and who read it last.
#pragma once
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "order.h"
#include "warp.h"

namespace vgpu {

// look, store: a read or a write that is noted later, or elsewhere. Lanes of one instruction may
// write the same value to the same place, and the reads of a wgmma end when it is waited for. copy:
// a write by an asynchronous copy that the lane starts.
enum class Access { read, look, store, copy, write, atomic };

// A tick and the lane, packed, and whether the access was an atomic.
constexpr std::uint32_t kAtomic = 32;
constexpr std::uint32_t stamp_of(Tick tick, int lane) {
  return tick << 6 | static_cast<unsigned>(lane);
}
constexpr Tick tick_of(std::uint32_t stamp) { return stamp >> 6; }
constexpr int lane_of(std::uint32_t stamp) { return static_cast<int>(stamp & 31); }
constexpr bool is_atomic(std::uint32_t stamp) { return stamp & kAtomic; }
constexpr std::uint32_t kUnderWay = ~0u;  // an asynchronous copy will write the word
// Who wrote a word: the column, which bytes of the word, and at which instruction.
struct Writer {
  std::int16_t column;
  std::uint16_t bytes;
  std::int32_t pc;
};
constexpr Tick kLastTick = (1u << 26) - 2;  // a worker begins anew long before

struct SharedMemory {
  std::vector<char> bytes;

  // Of each word: the stamp of its last write, and who wrote.
  std::vector<std::uint32_t> written;
  std::vector<Writer> writer;
  // The tick of the last read, and the stamp of each warp's last read: a warp's words lie together.
  std::vector<std::uint32_t> read, read_by;
  std::size_t words = 0;
  // The last reads of a word by threads of other blocks.
  struct GuestRead {
    int column, lane, pc;
    Tick tick;
  };
  std::unordered_map<std::uint32_t, std::vector<GuestRead>> guest_reads;
  std::vector<Tick> last;  // of each column of the cluster, its last access to this memory

  void resize(std::size_t size, unsigned warps);
  void forget();  // who wrote and read: ticks begin anew

  std::uint32_t* reads_of(int warp) { return read_by.data() + words * warp; }
};

// The bytes of [address, address + size) of a block's memory, after the checks of an access by this
// lane; these note the access.
char* shared_bytes(Warp& w, const Ins& i, Block& block, std::uint64_t address, unsigned size,
                   int lane, Access access);

// The same for a word, whose address is a multiple of 4, of which the lane touches the bytes in
// `mask`. Nothing is noted.
void check_read(Warp& w, const Ins& i, Block& block, unsigned address, unsigned mask, int lane);
void check_write(Warp& w, const Ins& i, Block& block, unsigned address, unsigned mask, int lane,
                 bool atomic);

// A store of this lane to bytes that are in the shared memory of a block of the cluster, or not.
void note_store(Warp& w, const char* to, unsigned size, int lane);

// Notes a write of [begin, end).
void note_write(SharedMemory& m, unsigned begin, unsigned end, std::uint32_t stamp, int column,
                int pc);

// ld.shared and st.shared of 1, 2 or 4 words: the checks of all lanes at once.
template <int words>
void load_shared(Warp& w, const Ins& i);
template <int words>
void store_shared(Warp& w, const Ins& i);

}  // namespace vgpu
