// Copies and fills.
#pragma once
#include <cuda.h>

#include <cstddef>
#include <cstdint>

namespace vgpu {

// Rows of `width` bytes.
struct Copy {
  std::uint64_t to, from;
  std::size_t width, height = 1;
  std::size_t to_pitch = 0, from_pitch = 0;
};
Copy copy_of(const CUDA_MEMCPY2D& description);

// Rows of `width` elements of `element` bytes, each `value`.
struct Fill {
  std::uint64_t to;
  std::uint32_t value;
  unsigned element;
  std::size_t width, height = 1;
  std::size_t pitch = 0;
};

// The asynchronous forms. What the host may see of them follows "API synchronization behavior" of
// the runtime's manual: a copy to pageable host memory is complete on return, one from it has taken
// its bytes, one between host addresses is complete; of pinned memory nothing is known before the
// stream was waited for.
void copy_async(const Copy& copy, CUstream stream);
void fill_async(const Fill& fill, CUstream stream);
// In the legacy stream; complete on return unless both sides are device memory.
void copy_and_wait(const Copy& copy);

// Device memory is freed once the device has nothing to do, as cudaFree waits for it.
std::uint64_t allocate(std::size_t size);
void deallocate(std::uint64_t address);
void* allocate_pinned(std::size_t size);
void deallocate_pinned(void* address);

}  // namespace vgpu
