#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

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

// ---- shared memory -----------------------------------------------------------------------------

constexpr std::size_t kAlignment = 128;
constexpr int kCanary = 0xa5;
#if defined(CONVNET_EMULATOR_ASAN)
constexpr std::size_t kCanaryBytes = 0;  // AddressSanitizer has its own
#else
constexpr std::size_t kCanaryBytes = 128;  // on each side of an array
#endif

bool all_canary(const char* data) {
  for (std::size_t i = 0; i < kCanaryBytes; ++i) {
    if (static_cast<unsigned char>(data[i]) != kCanary) return false;
  }
  return true;
}

}  // namespace

void allocate_shared_array(SharedArray* array) {
  void* base = nullptr;
  if (posix_memalign(&base, kAlignment, array->bytes + 2 * kCanaryBytes) != 0) {
    throw std::bad_alloc();
  }
  char* front = static_cast<char*>(base);
  array->data = front + kCanaryBytes;
  std::memset(front, kCanary, kCanaryBytes);
  std::memset(array->data, kPoison, array->bytes);
  std::memset(array->data + array->bytes, kCanary, kCanaryBytes);
}

void free_shared_array(SharedArray* array) { std::free(array->data - kCanaryBytes); }

bool canaries_intact(const SharedArray& array) {
  return all_canary(array.data - kCanaryBytes) && all_canary(array.data + array.bytes);
}

// ---- logical devices ---------------------------------------------------------------------------

namespace {

constexpr int kMaxDevices = 8;

// Mapped by allocate_device_memory(), with a guard page at either end.
struct Region {
  std::size_t bytes;
  int device;
};

struct Devices {
  std::mutex mutex;
  std::map<std::uintptr_t, Region> regions;  // by first address
  bool peers[kMaxDevices][kMaxDevices] = {};
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
    if (may_access(all, device, region.device)) continue;
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
}

// The region nearest below or around `address`: its start, or 0.
static std::uintptr_t region_near(const Devices& all, std::uintptr_t address, Region* region) {
  auto next = all.regions.upper_bound(address);
  if (next == all.regions.begin()) return 0;
  --next;
  // A region's own guard and padding count as the region.
  if (address - next->first >= whole_pages(next->second.bytes) + page_bytes()) return 0;
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
  all.regions[reinterpret_cast<std::uintptr_t>(data)] = Region{bytes == 0 ? 1 : bytes, device};
  return data;
}

void free_device_memory(void* pointer) {
  if (pointer == nullptr) return;
  Devices& all = devices();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.regions.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == all.regions.end()) {
    throw std::runtime_error("cudaFree: not a pointer that cudaMalloc gave");
  }
  const std::size_t size = whole_pages(found->second.bytes);
#if defined(CONVNET_EMULATOR_ASAN)
  __asan_unpoison_memory_region(pointer, size);
#endif
  munmap(static_cast<char*>(pointer) - page_bytes(), size + 2 * page_bytes());
  all.regions.erase(found);
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

std::string global_access_error(int device, std::uintptr_t address) {
  Devices& all = devices();
  const std::lock_guard<std::mutex> lock(all.mutex);
  Region region{};
  const std::uintptr_t start = region_near(all, address, &region);
  if (start == 0) return "";
  if (!may_access(all, device, region.device)) {
    return "access to memory of device " + std::to_string(region.device) + " from device " +
           std::to_string(device) + " without a peer mapping";
  }
  return "global-memory overrun: offset " + std::to_string(address - start) +
         " of an allocation of " + std::to_string(region.bytes) + " bytes";
}

}  // namespace convnet::emulator
