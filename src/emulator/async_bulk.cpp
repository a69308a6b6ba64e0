// mbarrier, and the copies that arrive at one.
//
// A barrier's 64 bits in shared memory hold its state, so that an uninitialized one is known by
// the poison. Copies of a phase are written at the latest moment: when all threads have arrived and
// somebody waits.
#include <cstring>

#include "hopper.h"
#include "memory.h"

namespace convnet::emulator {
namespace {

struct Barrier {
  std::uint64_t count : 15;    // threads that a phase waits for
  std::uint64_t missing : 15;  // that have not arrived
  std::uint64_t phase : 1;     // parity of the one under way
  std::uint64_t bytes : 32;    // that are expected and were not copied yet
  std::uint64_t poison : 1;
};
static_assert(sizeof(Barrier) == 8, "a barrier has 64 bits");

Barrier load(const std::uint64_t* word, const char* operation, CallSite where) {
  if ((reinterpret_cast<std::uintptr_t>(word) & 7) != 0) fail(where, "%s: misaligned", operation);
  window_address(word, where);
  Barrier barrier;
  std::memcpy(&barrier, word, sizeof barrier);
  if (barrier.poison != 0) fail(where, "%s: the barrier was not initialized", operation);
  return barrier;
}

void store(std::uint64_t* word, const Barrier& barrier) {
  std::memcpy(word, &barrier, sizeof barrier);
}

AsyncState& state() { return current->block->async; }

// Begins the next phase and lets go those who wait for this one.
void complete_phase(std::uint64_t* word, Barrier barrier) {
  barrier.missing = barrier.count;
  barrier.phase ^= 1;
  store(word, barrier);
  std::vector<Waiter>& waiters = state().waiters;
  std::size_t kept = 0;
  for (const Waiter& waiter : waiters) {
    if (waiter.barrier == word) {
      current->block->wake(waiter.thread);
    } else {
      waiters[kept++] = waiter;
    }
  }
  waiters.resize(kept);
}

// Writes what was copied for this barrier, as far as it is expected, where all threads have
// arrived. True where that completed the phase.
bool finish_copies(std::uint64_t* word, CallSite where) {
  Barrier barrier = load(word, "mbarrier", where);
  if (barrier.missing != 0) return false;
  std::vector<BulkCopy>& copies = state().copies;
  std::size_t kept = 0;
  for (BulkCopy& copy : copies) {
    if (copy.barrier != word) {
      if (&copies[kept] != &copy) copies[kept] = std::move(copy);
      ++kept;
      continue;
    }
    const std::uint64_t bytes = 16 * copy.pieces.size();
    if (bytes > barrier.bytes) {
      fail(copy.where, "a copy of %llu bytes, but its barrier expects only %llu more",
           static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(barrier.bytes));
    }
    barrier.bytes -= bytes;
    for (const BulkCopy::Piece& piece : copy.pieces) {
      std::memcpy(piece.destination, piece.data, 16);
    }
  }
  copies.resize(kept);
  if (barrier.bytes == 0) {
    complete_phase(word, barrier);
    return true;
  }
  store(word, barrier);
  return false;
}

bool somebody_waits(const std::uint64_t* word) {
  for (const Waiter& waiter : state().waiters) {
    if (waiter.barrier == word) return true;
  }
  return false;
}

void check_copy(const void* destination, const void* source, std::uintptr_t alignment,
                const std::uint64_t* barrier, CallSite where) {
  load(barrier, "copy", where);
  const bool aligned = window_address(destination, where) % alignment == 0 &&
                       (reinterpret_cast<std::uintptr_t>(source) & 15) == 0;
  if (!aligned) fail(where, "misaligned copy: from %p to %p", source, destination);
}

void add_piece(BulkCopy* copy, char* destination, const void* source) {
  BulkCopy::Piece piece{destination, {}};
  if (source != nullptr) {
    std::memcpy(piece.data, source, 16);
  }
  std::memset(destination, kPoison, 16);
  copy->pieces.push_back(piece);
}

}  // namespace

unsigned window_address(const void* pointer, CallSite where) {
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(pointer);
  unsigned start = kSharedWindow;
  for (const SharedArray& array : current->block->arrays) {
    const std::uintptr_t offset = address - reinterpret_cast<std::uintptr_t>(array.data);
    if (offset < array.bytes) return start + static_cast<unsigned>(offset);
    start += static_cast<unsigned>((array.bytes + 127) / 128 * 128);
  }
  fail(where, "%p is not in shared memory", pointer);
}

void AsyncState::clear() {
  copies.clear();
  waiters.clear();
  products.clear();
}

const char* AsyncState::left_over(CallSite* where) const {
  if (!copies.empty()) {
    *where = copies[0].where;
    return "a copy to shared memory that nobody has waited for";
  }
  for (const WarpProducts& warp : products) {
    if (warp.started.empty()) continue;
    *where = warp.started[0].where;
    return "a wgmma that was not waited for";
  }
  return nullptr;
}

void mbarrier_init(std::uint64_t* word, unsigned count, CallSite where) {
  if (count == 0 || count >= 1u << 15) fail(where, "mbarrier_init: a count of %u", count);
  window_address(word, where);
  Barrier barrier{};
  barrier.count = barrier.missing = count;
  store(word, barrier);
}

void mbarrier_arrive(std::uint64_t* word, unsigned expected_bytes, CallSite where) {
  Barrier barrier = load(word, "mbarrier_arrive", where);
  if (barrier.missing == 0) fail(where, "mbarrier_arrive: more threads than the barrier counts");
  barrier.missing -= 1;
  barrier.bytes += expected_bytes;
  store(word, barrier);
  if (barrier.missing != 0) return;
  if (barrier.bytes == 0) {
    complete_phase(word, barrier);
  } else if (somebody_waits(word)) {
    finish_copies(word, where);
  }
}

void mbarrier_wait(std::uint64_t* word, unsigned parity, CallSite where) {
  Block* block = current->block;
  while (load(word, "mbarrier_wait", where).phase == (parity & 1)) {
    if (finish_copies(word, where)) break;
    block->async.waiters.push_back({current, word, where});
    block->sleep();
  }
}

void bulk_copy(void* destination, const void* source, unsigned bytes, std::uint64_t* barrier,
               CallSite where) {
  if (bytes == 0 || bytes % 16 != 0) fail(where, "bulk_copy of %u bytes", bytes);
  check_copy(destination, source, 16, barrier, where);
  BulkCopy copy{barrier, {}, where};
  for (unsigned i = 0; i < bytes; i += 16) {
    add_piece(&copy, static_cast<char*>(destination) + i, static_cast<const char*>(source) + i);
  }
  current->block->async.copies.push_back(std::move(copy));
  if (somebody_waits(barrier)) finish_copies(barrier, where);
}

// Boxes with rows of 64 bytes. 16 bytes are inside the tensor or outside as a whole.
void tensor_copy(void* destination, const TensorMap& map, const int (&at)[4],
                 std::uint64_t* barrier, CallSite where) {
  check_copy(destination, map.data, map.swizzled ? 512 : 128, barrier, where);
  BulkCopy copy{barrier, {}, where};
  const unsigned start = window_address(destination, where);
  unsigned offset = 0;
  for (int n = 0; n < map.box[3]; ++n) {
    for (int row = 0; row < map.box[2]; ++row) {
      for (int pixel = 0; pixel < map.box[1]; ++pixel) {
        for (int element = 0; element < map.box[0]; element += 4, offset += 16) {
          const std::int64_t place[4] = {at[0] + element, at[1] + pixel, at[2] + row, at[3] + n};
          const char* source = map.data;
          for (int i = 0; i < 4; ++i) {
            const bool inside = place[i] >= 0 && place[i] < map.size[i];
            if (!inside) source = nullptr;
            if (source != nullptr) source += place[i] * map.stride[i];
          }
          const unsigned place_in_window = start + offset;
          const unsigned swizzled =
              map.swizzled ? place_in_window ^ (place_in_window >> 7 & 3) << 4 : place_in_window;
          add_piece(&copy, static_cast<char*>(destination) + (swizzled - start), source);
        }
      }
    }
  }
  current->block->async.copies.push_back(std::move(copy));
  if (somebody_waits(barrier)) finish_copies(barrier, where);
}

}  // namespace convnet::emulator
