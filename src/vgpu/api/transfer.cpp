#include "vgpu/api/transfer.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "vgpu/api/device.h"
#include "vgpu/api/stream.h"
#include "vgpu/memory.h"

namespace vgpu {

namespace {

enum class Side { device, pinned, pageable };

Side side_of(std::uint64_t address) {
  if (memory_is_device(address)) return Side::device;
  const Allocation* const a = memory_find(address);
  return !a ? Side::pageable : a->registered ? Side::device : Side::pinned;
}

std::string hex(std::uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "%#llx", static_cast<unsigned long long>(value));
  return text;
}

// The row's bytes; fails where they are not wholly in one allocation.
char* row(std::uint64_t address, std::size_t bytes, CUresult code, const char* what) {
  char* const found = memory_range(address, bytes);
  if (!found)
    fail(code, std::string(what) + " of " + std::to_string(bytes) + " bytes at " + hex(address) +
                   " leaves its allocation");
  return found;
}

void check(const Copy& c, CUresult code) {
  for (const std::size_t y : {std::size_t{0}, c.height - 1}) {
    row(c.to + y * c.to_pitch, c.width, code, "a copy to device memory");
    row(c.from + y * c.from_pitch, c.width, code, "a copy from device memory");
  }
}

void run(const Copy& c) {
  for (std::size_t y = 0; y < c.height; ++y)
    std::memmove(row(c.to + y * c.to_pitch, c.width, CUDA_ERROR_ILLEGAL_ADDRESS, "a copy"),
                 row(c.from + y * c.from_pitch, c.width, CUDA_ERROR_ILLEGAL_ADDRESS, "a copy"),
                 c.width);
}

// The work of a copy whose source is taken now.
Work staged(Copy c) {
  auto bytes = std::make_shared<std::vector<char>>(c.width * c.height);
  for (std::size_t y = 0; y < c.height; ++y)
    std::memcpy(bytes->data() + y * c.width, memory_host(c.from + y * c.from_pitch), c.width);
  c.from = reinterpret_cast<std::uint64_t>(bytes->data());
  c.from_pitch = c.width;
  return [c, bytes] { run(c); };
}

}  // namespace

Copy copy_of(const CUDA_MEMCPY2D& c) {
  const auto side = [](CUmemorytype type, const void* host, CUdeviceptr device) {
    return type == CU_MEMORYTYPE_HOST ? reinterpret_cast<CUdeviceptr>(host) : device;
  };
  return {side(c.dstMemoryType, c.dstHost, c.dstDevice) + c.dstY * c.dstPitch + c.dstXInBytes,
          side(c.srcMemoryType, c.srcHost, c.srcDevice) + c.srcY * c.srcPitch + c.srcXInBytes,
          c.WidthInBytes,
          c.Height,
          c.dstPitch,
          c.srcPitch};
}

void copy_async(const Copy& copy, CUstream stream) {
  if (copy.width == 0 || copy.height == 0) return;
  check(copy, CUDA_ERROR_INVALID_VALUE);
  const Side to = side_of(copy.to), from = side_of(copy.from);
  const bool takes_now = from == Side::pageable && !stream_of(stream).capture.session;
  Work work = takes_now ? staged(copy) : Work([copy] { run(copy); });
  const TaskRef task = enqueue(stream, CU_GRAPH_NODE_TYPE_MEMCPY, "copy", std::move(work));
  const bool between_hosts = to != Side::device && from != Side::device;
  if (task && (to == Side::pageable || between_hosts)) {
    scheduler().finish(task);
    throw_error(*task->context);
  }
}

void copy_and_wait(const Copy& copy) {
  require_no_capture("a synchronous copy");
  if (copy.width == 0 || copy.height == 0) return;
  check(copy, CUDA_ERROR_INVALID_VALUE);
  const TaskRef task = enqueue(nullptr, CU_GRAPH_NODE_TYPE_MEMCPY, "copy", [copy] { run(copy); });
  if (side_of(copy.to) == Side::device && side_of(copy.from) == Side::device) return;
  scheduler().finish(task);
  throw_error(*task->context);
}

void fill_async(const Fill& fill, CUstream stream) {
  if (fill.width == 0 || fill.height == 0) return;
  const std::size_t bytes = fill.width * fill.element;
  row(fill.to, bytes, CUDA_ERROR_INVALID_VALUE, "a fill");
  row(fill.to + (fill.height - 1) * fill.pitch, bytes, CUDA_ERROR_INVALID_VALUE, "a fill");
  enqueue(stream, CU_GRAPH_NODE_TYPE_MEMSET, "fill", [fill, bytes] {
    for (std::size_t y = 0; y < fill.height; ++y) {
      char* const at = row(fill.to + y * fill.pitch, bytes, CUDA_ERROR_ILLEGAL_ADDRESS, "a fill");
      for (std::size_t i = 0; i < bytes; i += fill.element)
        std::memcpy(at + i, &fill.value, fill.element);
    }
  });
}

std::uint64_t allocate(std::size_t size) {
  const Context& context = require_context();
  require_no_capture("allocating memory");
  require(size > 0, CUDA_ERROR_INVALID_VALUE);
  require(memory_used() + size <= kDeviceBytes, CUDA_ERROR_OUT_OF_MEMORY);
  const std::uint64_t address = memory_alloc(size, context.device);
  require(address != 0, CUDA_ERROR_OUT_OF_MEMORY);
  return address;
}

void deallocate(std::uint64_t address) {
  require_no_capture("freeing memory");
  if (address == 0) return;
  const Allocation* const a = memory_find(address);
  require(a && !a->registered && a->base == address, CUDA_ERROR_INVALID_VALUE,
          "an address is freed that was not allocated");
  scheduler().finish_all(primary_context(a->device));
  memory_free(address);
}

void* allocate_pinned(std::size_t size) {
  constexpr std::size_t kPage = 4096;
  void* const made = std::aligned_alloc(kPage, (size + kPage - 1) / kPage * kPage);
  require(made != nullptr, CUDA_ERROR_OUT_OF_MEMORY);
  memory_add_host(made, size);
  return made;
}

void deallocate_pinned(void* address) {
  for (int device = 0; device < device_count(); ++device)
    scheduler().finish_all(primary_context(device));
  require(memory_free(reinterpret_cast<std::uint64_t>(address)), CUDA_ERROR_INVALID_VALUE,
          "pinned memory is freed that was not allocated");
  std::free(address);
}

}  // namespace vgpu
