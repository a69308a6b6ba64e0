// Device memory. A device address is a number that the host cannot dereference: it lies in a range
// of pages without access, and the bytes lie a fixed shift above it, so that a program that touches
// device memory on the host dies of SIGSEGV as it does on a machine with a GPU. Behind each
// allocation is a red zone of addresses that belong to nobody.
//
// Host memory that kernels may touch is in the same table: pinned memory of the API, and arrays
// that the program registered for a call. There the address is the same on both sides and no red
// zone follows.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

namespace vgpu {

struct Allocation {
  std::uint64_t base = 0, size = 0;
  int device = 0;
  bool host = false;        // host memory: the same address on both sides, open to every device
  bool registered = false;  // by memory_register(): host memory that stands for device memory

  std::uint64_t end() const { return base + size; }
};

// What is allocated at one moment, by address. Ranges are disjoint except for registered arrays.
class MemoryTable {
 public:
  // The allocation that holds [address, address + size), or null.
  const Allocation* find(std::uint64_t address, std::uint64_t size = 1) const;
  // The allocation that ends nearest below the address, or null: for messages.
  const Allocation* before(std::uint64_t address) const;

 private:
  friend struct Heap;
  std::vector<Allocation> allocations_;  // by base
  std::uint64_t longest_ = 0;            // of the registered arrays
};

// The present table. It does not change: a kernel takes it once and looks things up without a lock.
std::shared_ptr<const MemoryTable> memory_table();

std::uint64_t memory_alloc(std::uint64_t size, int device);  // 0 where there is no room
void memory_add_host(void* base, std::uint64_t size);        // pinned memory
bool memory_free(std::uint64_t address);                     // either; false for an unknown base
std::uint64_t memory_used();                                 // bytes, of all devices

// Lets kernels touch [base, base + size) of the host, an array's bytes, until as many calls of
// memory_unregister() with the same base and size. Ranges may overlap: an access has to lie wholly
// in one of them.
void memory_register(const void* base, std::uint64_t size, int device = 0);
void memory_unregister(const void* base, std::uint64_t size);

bool memory_is_device(std::uint64_t address);  // an address that the host cannot touch
char* memory_host(std::uint64_t address);      // its bytes, for any address: no check
// The bytes of [address, address + size), or null where that is not wholly in one allocation; host
// addresses that nobody registered are taken as they are.
char* memory_range(std::uint64_t address, std::uint64_t size);

// The allocation that holds the address, or null. Valid until memory is next allocated or freed.
const Allocation* memory_find(std::uint64_t address);

}  // namespace vgpu
