#include "vgpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "vgpu/host_access.h"

namespace vgpu {

namespace {

constexpr std::uint64_t kRoom = 64ull << 30;  // addresses, all devices together
constexpr std::uint64_t kAlign = 512, kRedZone = 4096;
constexpr std::uint64_t kReturned = 1 << 20;  // larger ones go back to the system when freed
constexpr int kGarbage = 0xff;                // as a float NaN: nobody may count on zeros

std::uint64_t reserve(int access) {
  return reinterpret_cast<std::uint64_t>(
      mmap(nullptr, kRoom, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
}

std::uint64_t with_red_zone(std::uint64_t size) {
  return (size + kRedZone + kAlign - 1) / kAlign * kAlign;
}

bool by_base(const Allocation& a, const Allocation& b) { return a.base < b.base; }

}  // namespace

struct Heap {
  std::mutex mutex;
  std::shared_ptr<const MemoryTable> table = std::make_shared<MemoryTable>();
  std::map<std::uint64_t, std::uint64_t> holes;  // base -> size
  std::uint64_t base = reserve(PROT_NONE);
  std::uint64_t shift = reserve(PROT_READ | PROT_WRITE) - base;
  std::uint64_t used = 0;

  Heap() {
    holes[base] = kRoom;
    explain_host_accesses();
  }

  char* bytes(std::uint64_t address) const { return reinterpret_cast<char*>(address + shift); }

  void add(const Allocation& a) {
    auto made = std::make_shared<MemoryTable>(*table);
    auto& all = made->allocations_;
    all.insert(std::upper_bound(all.begin(), all.end(), a, by_base), a);
    if (a.registered) made->longest_ = std::max(made->longest_, a.size);
    table = std::move(made);
  }

  // Takes out the first allocation at `base` for which `is` holds.
  template <typename F>
  bool remove(std::uint64_t at, F is, Allocation* removed = nullptr) {
    auto made = std::make_shared<MemoryTable>(*table);
    auto& all = made->allocations_;
    auto it = std::lower_bound(all.begin(), all.end(), Allocation{at}, by_base);
    while (it != all.end() && it->base == at && !is(*it)) ++it;
    if (it == all.end() || it->base != at) return false;
    if (removed) *removed = *it;
    all.erase(it);
    made->longest_ = 0;
    for (const Allocation& a : all)
      if (a.registered) made->longest_ = std::max(made->longest_, a.size);
    table = std::move(made);
    return true;
  }

  // The first hole that is large enough; 0 without one.
  std::uint64_t take_hole(std::uint64_t need) {
    for (auto it = holes.begin(); it != holes.end(); ++it) {
      if (it->second < need) continue;
      const std::uint64_t at = it->first, rest = it->second - need;
      holes.erase(it);
      if (rest) holes[at + need] = rest;
      return at;
    }
    return 0;
  }

  // Joined with the holes beside it.
  void return_hole(std::uint64_t at, std::uint64_t size) {
    auto next = holes.upper_bound(at);
    if (next != holes.end() && next->first == at + size) {
      size += next->second;
      next = holes.erase(next);
    }
    if (next != holes.begin()) {
      auto previous = std::prev(next);
      if (previous->first + previous->second == at) {
        previous->second += size;
        return;
      }
    }
    holes[at] = size;
  }
};

namespace {

Heap& heap() {
  static Heap* const the = new Heap;  // never destroyed: programs free memory at their exit
  return *the;
}

}  // namespace

const Allocation* MemoryTable::find(std::uint64_t address, std::uint64_t size) const {
  auto it =
      std::upper_bound(allocations_.begin(), allocations_.end(), Allocation{address}, by_base);
  // Registered arrays may overlap: one that begins earlier may reach further.
  while (it != allocations_.begin()) {
    --it;
    if (address - it->base < it->size && size <= it->end() - address) return &*it;
    if (address - it->base >= longest_) break;
  }
  return nullptr;
}

const Allocation* MemoryTable::before(std::uint64_t address) const {
  const auto it =
      std::upper_bound(allocations_.begin(), allocations_.end(), Allocation{address}, by_base);
  return it == allocations_.begin() ? nullptr : &*std::prev(it);
}

std::shared_ptr<const MemoryTable> memory_table() {
  const std::lock_guard lock(heap().mutex);
  return heap().table;
}

std::uint64_t memory_alloc(std::uint64_t size, int device) {
  Heap& h = heap();
  const std::lock_guard lock(h.mutex);
  const std::uint64_t at = h.take_hole(with_red_zone(size));
  if (!at) return 0;
  h.add({at, size, device});
  h.used += size;
  std::memset(h.bytes(at), kGarbage, size);
  return at;
}

void memory_add_host(void* base, std::uint64_t size) {
  const std::lock_guard lock(heap().mutex);
  heap().add({reinterpret_cast<std::uint64_t>(base), size, 0, true});
}

bool memory_free(std::uint64_t address) {
  Heap& h = heap();
  const std::lock_guard lock(h.mutex);
  Allocation a;
  if (!h.remove(address, [](const Allocation& each) { return !each.registered; }, &a)) return false;
  if (a.host) return true;
  h.used -= a.size;
  const std::uint64_t size = with_red_zone(a.size);
  if (size > kReturned) madvise(h.bytes(a.base), size, MADV_DONTNEED);
  h.return_hole(a.base, size);
  return true;
}

std::uint64_t memory_used() { return heap().used; }

void memory_register(const void* base, std::uint64_t size, int device) {
  const std::lock_guard lock(heap().mutex);
  heap().add({reinterpret_cast<std::uint64_t>(base), size, device, true, true});
}

void memory_unregister(const void* base, std::uint64_t size) {
  const std::lock_guard lock(heap().mutex);
  heap().remove(reinterpret_cast<std::uint64_t>(base),
                [size](const Allocation& each) { return each.registered && each.size == size; });
}

bool memory_is_device(std::uint64_t address) { return address - heap().base < kRoom; }

char* memory_host(std::uint64_t address) {
  return memory_is_device(address) ? heap().bytes(address) : reinterpret_cast<char*>(address);
}

char* memory_range(std::uint64_t address, std::uint64_t size) {
  if (size && memory_is_device(address) && !memory_table()->find(address, size)) return nullptr;
  return memory_host(address);
}

const Allocation* memory_find(std::uint64_t address) { return memory_table()->find(address); }

}  // namespace vgpu
