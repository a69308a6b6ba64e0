// cp.async: poisons its destination when issued, writes it when waited for.
//
// The source is read at issue. Whoever reads the destination before the issuing thread has waited,
// and before a barrier has made that visible, sees poison.
#include <cstdint>
#include <cstring>

#include "block.h"
#include "memory.h"

namespace convnet::emulator {

void cp_async(void* shared_destination, const void* source, int bytes, bool predicate,
              CallSite where) {
  ThreadExtra& extra = current->block->extra();
  if (bytes != 4 && bytes != 8 && bytes != 16) fail(where, "cp_async of %d bytes", bytes);
  const auto destination_address = reinterpret_cast<std::uintptr_t>(shared_destination);
  const auto source_address = reinterpret_cast<std::uintptr_t>(source);
  const auto low_bits = static_cast<std::uintptr_t>(bytes - 1);
  if ((destination_address & low_bits) != 0 || (predicate && (source_address & low_bits) != 0)) {
    fail(where, "cp_async: misaligned address: %d bytes from %p to %p", bytes, source,
         shared_destination);
  }
  extra.copies.emplace_back();
  AsyncCopy& copy = extra.copies.back();
  copy.destination = shared_destination;
  copy.bytes = bytes;
  copy.group = extra.copy_group;
  copy.where = where;
  if (predicate) {
    std::memcpy(copy.data, source, static_cast<std::size_t>(bytes));
  } else {
    std::memset(copy.data, 0, sizeof copy.data);
  }
  std::memset(shared_destination, kPoison, static_cast<std::size_t>(bytes));
}

void cp_async_commit() { ++current->block->extra().copy_group; }

void cp_async_wait(int groups_left) {
  ThreadExtra& extra = current->block->extra();
  const std::size_t count = extra.copies.size();
  while (extra.next_copy < count) {
    const AsyncCopy& copy = extra.copies[extra.next_copy];
    const unsigned newer_groups = extra.copy_group - copy.group;  // 0: not committed yet
    const bool complete = groups_left < 0 || newer_groups > static_cast<unsigned>(groups_left);
    if (!complete) return;
    std::memcpy(copy.destination, copy.data, static_cast<std::size_t>(copy.bytes));
    ++extra.next_copy;
  }
  extra.copies.clear();
  extra.next_copy = 0;
}

}  // namespace convnet::emulator
