// Device memory: a reserved range of addresses that the host cannot touch, and the bytes elsewhere.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "vgpu.h"

namespace vgpu {
namespace {

constexpr std::uint64_t kRoom = 64ull << 30;  // addresses, all devices together
constexpr std::uint64_t kAlign = 512, kRedZone = 4096;

struct Heap {
  std::mutex mutex;
  std::map<std::uint64_t, Allocation> allocations;
  std::map<std::uint64_t, std::uint64_t> holes;  // base -> size
  std::uint64_t base = 0, shift = 0, used = 0;
  Heap() {
    base = reinterpret_cast<std::uint64_t>(
        mmap(nullptr, kRoom, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    shift =
        reinterpret_cast<std::uint64_t>(mmap(nullptr, kRoom, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) -
        base;
    holes[base] = kRoom;
  }
};

Heap& heap() {
  static Heap* const the = new Heap;  // never destroyed: cudart frees at exit
  return *the;
}

bool is_device(std::uint64_t address) { return address - heap().base < kRoom; }

}  // namespace

std::uint64_t memory_alloc(std::uint64_t size, int device) {
  Heap& h = heap();
  std::lock_guard lock(h.mutex);
  const std::uint64_t need = (size + kRedZone + kAlign - 1) / kAlign * kAlign;
  for (auto it = h.holes.begin(); it != h.holes.end(); ++it) {
    if (it->second < need) continue;
    const std::uint64_t at = it->first, rest = it->second - need;
    h.holes.erase(it);
    if (rest) h.holes[at + need] = rest;
    h.allocations[at] = {at, size, device, false};
    h.used += size;
    std::memset(reinterpret_cast<char*>(at + h.shift), 0xff,
                size);  // NaN: nobody may count on zeros
    return at;
  }
  return 0;
}

void memory_add_host(void* base, std::uint64_t size) {
  std::lock_guard lock(heap().mutex);
  const auto at = reinterpret_cast<std::uint64_t>(base);
  heap().allocations[at] = {at, size, 0, true};
}

bool memory_free(std::uint64_t address) {
  Heap& h = heap();
  std::lock_guard lock(h.mutex);
  const auto it = h.allocations.find(address);
  if (it == h.allocations.end()) return false;
  const Allocation a = it->second;
  h.allocations.erase(it);
  if (a.host) return true;
  h.used -= a.size;
  std::uint64_t at = a.base, size = (a.size + kRedZone + kAlign - 1) / kAlign * kAlign;
  if (size > (1 << 20)) madvise(reinterpret_cast<char*>(at + h.shift), size, MADV_DONTNEED);
  auto next = h.holes.upper_bound(at);
  if (next != h.holes.end() && next->first == at + size) {
    size += next->second;
    next = h.holes.erase(next);
  }
  if (next != h.holes.begin()) {
    auto prev = std::prev(next);
    if (prev->first + prev->second == at) {
      prev->second += size;
      return true;
    }
  }
  h.holes[at] = size;
  return true;
}

const Allocation* memory_find(std::uint64_t address) {
  Heap& h = heap();
  std::lock_guard lock(h.mutex);
  auto it = h.allocations.upper_bound(address);
  if (it == h.allocations.begin()) return nullptr;
  --it;
  return address - it->second.base < it->second.size ? &it->second : nullptr;
}

char* memory_host(std::uint64_t address) {
  return reinterpret_cast<char*>(is_device(address) ? address + heap().shift : address);
}

char* memory_range(std::uint64_t address, std::uint64_t size) {
  if (is_device(address)) {
    const Allocation* a = memory_find(address);
    if (!a || address + size > a->base + a->size) return size == 0 ? memory_host(address) : nullptr;
  }
  return memory_host(address);
}

std::uint64_t memory_used() { return heap().used; }

int env(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? std::atoi(value) : otherwise;
}

}  // namespace vgpu
