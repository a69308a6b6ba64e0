// Checks of every single memory access, for kernels compiled with -fsanitize=thread.
//
// That option makes the compiler call __tsan_read4(address) and its like before each access. The
// program is not linked with ThreadSanitizer: the functions are these here (so compile this file
// without the option), and know what a block is. They find
//   - races on shared memory: two threads touch a word, one of them writes, and no barrier (or, in
//     a warp, no __syncwarp) lies between; also a barrier that is missing;
//   - reads of shared memory that nobody wrote, or whose cp.async nobody waited for;
//   - accesses outside shared arrays and outside allocations of a device, misaligned accesses;
//   - accesses to another device's memory without a peer mapping.
// A race is noted at words of 4 bytes with the bytes touched, so neighbours may write halves.
// What it cannot see: races between blocks, and an index that stays inside the same array.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "fault.h"
#include "memory.h"

#if defined(__SANITIZE_THREAD__)
#error "access_check.cpp replaces ThreadSanitizer's functions; compile it without -fsanitize=thread"
#endif

namespace convnet::emulator {

// Of one access: a place in the source, or in the code where `file` is null.
struct Place {
  const char* file;
  std::uintptr_t line_or_code;
};

struct Touch {
  unsigned epoch = 0;       // barriers passed before it
  unsigned warp_clock = 0;  // __syncwarps the thread had passed
  short thread = 0;         // its number; of several readers the last
  unsigned char bytes = 0;  // which of the word, as bits
  bool atomic = false;
  bool whole_warp = false;  // several threads of one warp read it
  bool many_warps = false;  // threads of several warps read it
  Place place{};
};

struct SharedCell {
  Touch write, read;
  unsigned char written = 0;    // bytes with a value, in the block that began at `since`
  unsigned char in_flight = 0;  // bytes that a cp.async will write
  unsigned since = 0;
};

namespace {

constexpr std::size_t kCanaryBytes = 128;
constexpr int kCanary = 0xa5;
constexpr std::size_t kAlignment = 128;
constexpr std::size_t kWord = 4;

bool instrumented = false;
__thread bool paused = false;

// ---- shared arrays -----------------------------------------------------------------------------

#if defined(CONVNET_EMULATOR_ASAN)
constexpr std::size_t kFrontBytes = 0, kBackBytes = 0;  // AddressSanitizer has its own
#else
constexpr std::size_t kFrontBytes = kCanaryBytes, kBackBytes = kCanaryBytes;
#endif

bool all_canary(const char* data, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) {
    if (static_cast<unsigned char>(data[i]) != kCanary) return false;
  }
  return true;
}

}  // namespace

PauseChecks::PauseChecks() : before_(paused) { paused = true; }
PauseChecks::~PauseChecks() { paused = before_; }

void allocate_shared_array(SharedArray* array) {
  void* base = nullptr;
  if (posix_memalign(&base, kAlignment, kFrontBytes + array->bytes + kBackBytes) != 0) {
    throw std::bad_alloc();
  }
  char* front = static_cast<char*>(base);
  array->data = front + kFrontBytes;
  std::memset(front, kCanary, kFrontBytes);
  std::memset(array->data, kPoison, array->bytes);
  std::memset(array->data + array->bytes, kCanary, kBackBytes);
  array->cells = instrumented ? new SharedCell[array->bytes / kWord + 1] : nullptr;
}

void free_shared_array(SharedArray* array) {
  std::free(array->data - kFrontBytes);
  delete[] array->cells;
}

bool canaries_intact(const SharedArray& array) {
  return all_canary(array.data - kFrontBytes, kFrontBytes) &&
         all_canary(array.data + array.bytes, kBackBytes);
}

namespace {

// ---- one word ----------------------------------------------------------------------------------

SourceLine line_of(Place place) {
  if (place.file != nullptr) return {place.file, static_cast<int>(place.line_or_code)};
  const PauseChecks pause;
  return source_line(place.line_or_code);
}

[[noreturn]] void report(Place place, const char* message) {
  const SourceLine line = line_of(place);
  paused = false;
  fail(CallSite{line.file, line.line}, "%s", message);
}

// Whether what `touch` notes may happen at the same time as what thread `self` does now.
bool unordered(const Touch& touch, const Thread& self, const Block& block) {
  if (touch.epoch != block.epoch || touch.bytes == 0) return false;
  if (touch.many_warps) return true;
  if (touch.thread / kWarpSize != self.number / kWarpSize) return true;
  if (touch.warp_clock != self.block->extra().warp_clock) return false;
  return touch.whole_warp || touch.thread != self.number;
}

void note(Touch* touch, const Thread& self, const Block& block, unsigned bytes, bool atomic,
          Place place) {
  touch->epoch = block.epoch;
  touch->warp_clock = self.block->extra().warp_clock;
  touch->thread = static_cast<short>(self.number);
  touch->bytes = static_cast<unsigned char>(bytes);
  touch->atomic = atomic;
  touch->whole_warp = touch->many_warps = false;
  touch->place = place;
}

// Adds a reader to those noted, as far as they may be at the same time and touch the same bytes.
void note_read(Touch* touch, const Thread& self, const Block& block, unsigned bytes, Place place) {
  const Touch before = *touch;
  const bool joins = unordered(before, self, block) && (before.bytes & bytes) != 0;
  note(touch, self, block, bytes, false, place);
  if (!joins) return;
  touch->many_warps = before.many_warps || before.thread / kWarpSize != self.number / kWarpSize;
  touch->whole_warp = !touch->many_warps;
}

[[noreturn]] void report_race(const SharedArray& array, std::size_t offset, const Touch& other,
                              const char* did, const char* does, Place place) {
  const Thread& self = *current;
  const uint3 other_index = (&self - self.number + other.thread)->index;
  const SourceLine line = line_of(other.place);
  char message[400];
  std::snprintf(message, sizeof message,
                "race on shared memory: %s %s + %zu bytes, which thread (%u, %u, %u) %s at %s:%d "
                "with no barrier between",
                does, array.name, offset, other_index.x, other_index.y, other_index.z, did,
                line.file, line.line);
  report(place, message);
}

void check_word(SharedArray* array, std::size_t word, unsigned bytes, Access access, Place place) {
  const Thread& self = *current;
  const Block& block = *self.block;
  SharedCell& cell = array->cells[word];
  const std::size_t offset = word * kWord;
  if (cell.since != block.first_epoch) {
    cell = SharedCell{};
    cell.since = block.first_epoch;
  }
  const bool atomic = access == Access::kAtomic;
  const bool reads = access == Access::kRead || atomic;
  const bool writes = access != Access::kRead;
  if ((cell.write.bytes & bytes) != 0 && !(atomic && cell.write.atomic) &&
      unordered(cell.write, self, block)) {
    report_race(*array, offset, cell.write, "writes", writes ? "writes" : "reads", place);
  }
  if (writes && (cell.read.bytes & bytes) != 0 && unordered(cell.read, self, block)) {
    report_race(*array, offset, cell.read, "reads", "writes", place);
  }
  if (reads && (cell.in_flight & bytes) != 0) {
    report(place, "reads shared memory that an asynchronous copy has not filled yet");
  }
  if (reads && (cell.written & bytes) != bytes) {
    char message[256];
    std::snprintf(message, sizeof message, "reads shared memory that nobody wrote: %s + %zu bytes",
                  array->name, offset);
    report(place, message);
  }
  if (access == Access::kPoisonWrite) {
    cell.in_flight = static_cast<unsigned char>(cell.in_flight | bytes);
  } else if (writes) {
    cell.in_flight = static_cast<unsigned char>(cell.in_flight & ~bytes);
  }
  if (writes) {
    cell.written = static_cast<unsigned char>(cell.written | bytes);
    note(&cell.write, self, block, bytes, atomic, place);
  } else {
    note_read(&cell.read, self, block, bytes, place);
  }
}

// ---- one access --------------------------------------------------------------------------------

// Returns true where the address belongs to a shared array or to its surroundings.
bool check_shared(std::uintptr_t address, std::size_t bytes, Access access, Place place) {
  for (SharedArray& array : current->block->arrays) {
    const auto start = reinterpret_cast<std::uintptr_t>(array.data);
    if (address + bytes <= start - kCanaryBytes || address >= start + array.bytes + kCanaryBytes) {
      continue;
    }
    if (address < start || address + bytes > start + array.bytes) {
      char message[256];
      std::snprintf(message, sizeof message,
                    "shared-memory overrun: %zu bytes at offset %td of %s (%zu bytes)", bytes,
                    static_cast<std::ptrdiff_t>(address - start), array.name, array.bytes);
      report(place, message);
    }
    if (array.cells == nullptr) return true;
    std::size_t offset = address - start;
    while (bytes != 0) {
      const std::size_t in_word = offset % kWord;
      const std::size_t here = bytes < kWord - in_word ? bytes : kWord - in_word;
      check_word(&array, offset / kWord, ((1u << here) - 1) << in_word, access, place);
      offset += here;
      bytes -= here;
    }
    return true;
  }
  return false;
}

// Objects of the emulator that instrumented code reads: threadIdx, the kernel's arguments.
bool is_emulator_object(std::uintptr_t address) {
  const Block& block = *current->block;
  const auto within = [address](const void* start, std::size_t bytes) {
    return address - reinterpret_cast<std::uintptr_t>(start) < bytes;
  };
  const Thread* first = current - current->number;
  return within(first, kMaxBlockThreads * sizeof(Thread)) || within(&block, sizeof block) ||
         within(block.launch, sizeof(Launch)) || within(&current, sizeof current) ||
         within(block.launch->arguments, block.launch->argument_bytes);
}

void check_global(std::uintptr_t address, std::size_t bytes, Place place) {
  static __thread KnownRange known[4];
  static __thread unsigned turn = 0;
  const int device = current->block->launch->device;
  const std::uint64_t version = memory_version();
  for (const KnownRange& range : known) {
    if (range.version == version && range.device == device && address >= range.start &&
        address + bytes <= range.end) {
      return;
    }
  }
  char message[256] = "";
  {
    KnownRange range;
    const std::string wrong = global_access_error(device, address, bytes, &range);
    if (wrong.empty()) known[turn++ % 4] = range;
    std::snprintf(message, sizeof message, "%s", wrong.c_str());
  }
  if (message[0] != 0) report(place, message);
}

void check(const void* pointer, std::size_t bytes, Access access, Place place) {
  Thread* self = current;
  if (self == nullptr || paused) return;
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  const auto stack = reinterpret_cast<std::uintptr_t>(self->fiber.stack);
  if (address - stack < kStackBytes) return;  // a local variable
  paused = true;
  if (!check_shared(address, bytes, access, place) && !is_emulator_object(address)) {
    check_global(address, bytes, place);
  }
  paused = false;
}

}  // namespace

void check_access(const void* address, std::size_t bytes, Access access, CallSite where) {
  if (!instrumented) return;
  check(address, bytes, access, Place{where.file, static_cast<std::uintptr_t>(where.line)});
}

}  // namespace convnet::emulator

// ---- what instrumented code calls --------------------------------------------------------------

using convnet::emulator::Access;

#define CONVNET_CODE_PLACE                                                                    \
  (convnet::emulator::Place{nullptr,                                                          \
                            reinterpret_cast<std::uintptr_t>(                                 \
                                __builtin_extract_return_addr(__builtin_return_address(0))) - \
                                1})

extern "C" {

void __tsan_init() { convnet::emulator::instrumented = true; }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_write_range(void* a, std::size_t bytes) {
  convnet::emulator::check(a, bytes, Access::kWrite, CONVNET_CODE_PLACE);
}
void __tsan_read_range(void* a, std::size_t bytes) {
  convnet::emulator::check(a, bytes, Access::kRead, CONVNET_CODE_PLACE);
}

#define CONVNET_ACCESS_FUNCTIONS(bytes)                                     \
  void __tsan_read##bytes(void* a) {                                        \
    convnet::emulator::check(a, bytes, Access::kRead, CONVNET_CODE_PLACE);  \
  }                                                                         \
  void __tsan_write##bytes(void* a) {                                       \
    convnet::emulator::check(a, bytes, Access::kWrite, CONVNET_CODE_PLACE); \
  }                                                                         \
  void __tsan_unaligned_read##bytes(void* a) {                              \
    convnet::emulator::check(a, bytes, Access::kRead, CONVNET_CODE_PLACE);  \
  }                                                                         \
  void __tsan_unaligned_write##bytes(void* a) {                             \
    convnet::emulator::check(a, bytes, Access::kWrite, CONVNET_CODE_PLACE); \
  }                                                                         \
  void __tsan_volatile_read##bytes(void* a) {                               \
    convnet::emulator::check(a, bytes, Access::kRead, CONVNET_CODE_PLACE);  \
  }                                                                         \
  void __tsan_volatile_write##bytes(void* a) {                              \
    convnet::emulator::check(a, bytes, Access::kWrite, CONVNET_CODE_PLACE); \
  }

CONVNET_ACCESS_FUNCTIONS(1)
CONVNET_ACCESS_FUNCTIONS(2)
CONVNET_ACCESS_FUNCTIONS(4)
CONVNET_ACCESS_FUNCTIONS(8)
CONVNET_ACCESS_FUNCTIONS(16)

}  // extern "C"
