// The shared memory of a block, and for each of its words who wrote and who read it last.
#pragma once
#include <cstdint>
#include <vector>

#include "warp.h"

namespace vgpu {

// The epoch of words that a cp.async under way will write.
constexpr std::uint32_t kUnderWay = 0xffffff;

struct SharedMemory {
  std::vector<char> bytes;
  // Of each word: epoch << 8 | warp + 1 of the last write and the last read; 255 where several
  // warps read. An epoch is an interval between barriers; a word is unwritten where its epoch is
  // before the block's first.
  std::vector<std::uint32_t> writes, reads;
  std::uint32_t epoch = 1, first_epoch = 1;

  void resize(std::size_t size) {
    bytes.resize(size);
    writes.resize(size / 4 + 2);
    reads.resize(size / 4 + 2);
  }
};

enum class Access { read, write };
// The bytes of [address, address + size), after the checks of an access by this lane.
char* shared_bytes(Warp& w, const Ins& i, std::uint64_t address, unsigned size, int lane,
                   Access access);

// ld.shared of 1, 2 or 4 words: the checks of all lanes at once.
template <int words>
void load_shared(Warp& w, const Ins& i);

}  // namespace vgpu
