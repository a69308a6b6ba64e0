#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>

namespace convnet::emulator {
namespace {

constexpr int kMaxDevices = 8;

struct Region {
  std::size_t bytes;
  int device;
  bool owned;  // mapped by allocate_device_memory(), with a guard page at either end
};

struct Devices {
  std::mutex mutex;
  std::map<std::uintptr_t, Region> regions;  // by first address
  int registered = 0;                        // regions that are not owned
  bool peers[kMaxDevices][kMaxDevices] = {};
  std::atomic<std::uint64_t> version{1};  // counts changes of all this
};

Devices& devices() {
  static Devices* all = new Devices;
  return *all;
}

thread_local int current_device_of_thread = 0;

std::size_t whole_pages(std::size_t bytes) {
  return (bytes + page_bytes() - 1) / page_bytes() * page_bytes();
}

bool may_access(const Devices& all, int device, int owner) {
  return device == owner || all.peers[device][owner];
}

void protect_regions(int device, int protection) {
  Devices& all = devices();
  const std::lock_guard<std::mutex> lock(all.mutex);
  for (const auto& [start, region] : all.regions) {
    if (!region.owned || may_access(all, device, region.device)) continue;
    mprotect(reinterpret_cast<void*>(start), whole_pages(region.bytes), protection);
  }
}

}  // namespace

int device_count() {
  const char* text = std::getenv("CONVNET_EMULATOR_DEVICES");
  const int count = text == nullptr ? 2 : std::atoi(text);
  return count < 0 ? 0 : count > kMaxDevices ? kMaxDevices : count;
}

int current_device() { return current_device_of_thread; }
void set_current_device(int device) { current_device_of_thread = device; }

bool peer_enabled(int device, int peer) { return devices().peers[device][peer]; }
void set_peer_enabled(int device, int peer, bool enabled) {
  Devices& all = devices();
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.peers[device][peer] = enabled;
  ++all.version;
}

void register_memory(const void* pointer, std::size_t bytes, int device) {
  Devices& all = devices();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto start = reinterpret_cast<std::uintptr_t>(pointer);
  all.registered += all.regions.count(start) == 0;
  all.regions[start] = Region{bytes, device, false};
  ++all.version;
}

void unregister_memory(const void* pointer) {
  Devices& all = devices();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.regions.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == all.regions.end() || found->second.owned) return;
  all.regions.erase(found);
  --all.registered;
  ++all.version;
}

std::uint64_t memory_version() { return devices().version.load(std::memory_order_relaxed); }

// The registered region nearest below or around `address`: its start, or 0.
static std::uintptr_t region_near(const Devices& all, std::uintptr_t address, Region* region) {
  auto next = all.regions.upper_bound(address);
  if (next == all.regions.begin()) return 0;
  --next;
  // A region's own guard and padding count as the region.
  const std::size_t reach =
      next->second.owned ? whole_pages(next->second.bytes) + page_bytes() : next->second.bytes;
  if (address - next->first >= reach) return 0;
  *region = next->second;
  return next->first;
}

int memory_device(const void* pointer) {
  Devices& all = devices();
  const std::lock_guard<std::mutex> lock(all.mutex);
  Region region{};
  return region_near(all, reinterpret_cast<std::uintptr_t>(pointer), &region) == 0 ? -1
                                                                                   : region.device;
}

void* allocate_device_memory(std::size_t bytes, int device) {
  const std::size_t size = whole_pages(bytes == 0 ? 1 : bytes);
  void* base = mmap(nullptr, size + 2 * page_bytes(), PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) throw std::bad_alloc();
  char* data = static_cast<char*>(base) + page_bytes();
  mprotect(data, size, PROT_READ | PROT_WRITE);
  std::memset(data, kPoison, bytes);
#if defined(CONVNET_EMULATOR_ASAN)
  __asan_poison_memory_region(data + bytes, size - bytes);
#endif
  Devices& all = devices();
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.regions[reinterpret_cast<std::uintptr_t>(data)] =
      Region{bytes == 0 ? 1 : bytes, device, true};
  ++all.version;
  return data;
}

void free_device_memory(void* pointer) {
  if (pointer == nullptr) return;
  Devices& all = devices();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.regions.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == all.regions.end() || !found->second.owned) {
    throw std::runtime_error("cudaFree: not a pointer that cudaMalloc gave");
  }
  const std::size_t size = whole_pages(found->second.bytes);
#if defined(CONVNET_EMULATOR_ASAN)
  __asan_unpoison_memory_region(pointer, size);
#endif
  munmap(static_cast<char*>(pointer) - page_bytes(), size + 2 * page_bytes());
  all.regions.erase(found);
  ++all.version;
}

ProtectOtherDevices::ProtectOtherDevices(int device) : device_(device) {
  protect_regions(device_, PROT_NONE);
}

ProtectOtherDevices::~ProtectOtherDevices() { protect_regions(device_, PROT_READ | PROT_WRITE); }

void check_pointer_argument(const Launch& launch, const void* pointer, int position) {
  Devices& all = devices();
  const std::lock_guard<std::mutex> lock(all.mutex);
  Region region{};
  if (region_near(all, reinterpret_cast<std::uintptr_t>(pointer), &region) == 0) return;
  if (may_access(all, launch.device, region.device)) return;
  throw std::runtime_error(std::string(launch.op) + ": " + launch.where.file + ":" +
                           std::to_string(launch.where.line) + ": argument " +
                           std::to_string(position) + " points to memory of device " +
                           std::to_string(region.device) + "; device " +
                           std::to_string(launch.device) + " has no peer mapping for it");
}

std::string global_access_error(int device, std::uintptr_t address, std::size_t bytes,
                                KnownRange* known) {
  Devices& all = devices();
  const std::lock_guard<std::mutex> lock(all.mutex);
  Region region{};
  const std::uintptr_t start = region_near(all, address, &region);
  *known = KnownRange{all.version, device, start, start + region.bytes};
  if (start == 0) {
    if (all.registered != 0) return "access outside of all registered arrays";
    const auto next = all.regions.upper_bound(address);
    known->start = address;
    known->end = next == all.regions.end() ? UINTPTR_MAX : next->first - page_bytes();
    return "";
  }
  if (!may_access(all, device, region.device)) {
    return "access to memory of device " + std::to_string(region.device) + " from device " +
           std::to_string(device) + " without a peer mapping";
  }
  if (address - start + bytes <= region.bytes) return "";
  return "global-memory overrun: " + std::to_string(bytes) + " bytes at offset " +
         std::to_string(address - start) + " of an allocation of " + std::to_string(region.bytes) +
         " bytes";
}

}  // namespace convnet::emulator
