#include "vgpu/api/launch.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "vgpu/api/device.h"
#include "vgpu/api/module.h"
#include "vgpu/api/stream.h"

namespace vgpu {

namespace {

[[noreturn]] void refuse(const Function& f, const char* what, unsigned long asked,
                         unsigned long limit) {
  fail(CUDA_ERROR_INVALID_VALUE, "launch of " + f.kernel->name + " refused: " + what + ": " +
                                     std::to_string(asked) + ", limit " + std::to_string(limit));
}

void check_dimensions(const Function& f, const LaunchShape& shape) {
  for (int i = 0; i < 3; ++i) {
    if (shape.block[i] == 0 || shape.block[i] > kMaxBlock[i])
      refuse(f, "block dimension", shape.block[i], kMaxBlock[i]);
    if (shape.grid[i] == 0 || shape.grid[i] > kMaxGrid[i])
      refuse(f, "grid dimension", shape.grid[i], kMaxGrid[i]);
  }
  const unsigned long threads = 1ul * shape.block[0] * shape.block[1] * shape.block[2];
  if (threads > kMaxThreads) refuse(f, "threads of a block", threads, kMaxThreads);
  const auto bound = static_cast<unsigned long>(f.kernel->max_threads);
  if (threads > bound) refuse(f, "threads of a block, .maxntid", threads, bound);
}

void check_shared(const Function& f, const LaunchShape& shape) {
  const long room = shared_room(f);
  if (static_cast<long>(shape.shared) > room)
    refuse(f, "dynamic shared memory beside the static (cudaFuncSetAttribute?)", shape.shared,
           static_cast<unsigned long>(std::max(room, 0l)));
}

std::vector<char> packed(const Kernel& kernel, void** params, void** extra) {
  std::vector<char> bytes(kernel.param_bytes);
  if (params) {
    for (std::size_t i = 0; i < kernel.params.size(); ++i)
      std::memcpy(bytes.data() + kernel.params[i].offset, params[i], kernel.params[i].size);
  } else if (extra) {
    const void* buffer = nullptr;
    std::size_t size = 0;
    for (void** e = extra; *e != CU_LAUNCH_PARAM_END; e += 2) {
      if (*e == CU_LAUNCH_PARAM_BUFFER_POINTER) buffer = e[1];
      if (*e == CU_LAUNCH_PARAM_BUFFER_SIZE) size = *static_cast<std::size_t*>(e[1]);
    }
    if (buffer) std::memcpy(bytes.data(), buffer, std::min(size, bytes.size()));
  }
  return bytes;
}

}  // namespace

void launch(CUfunction handle, const LaunchShape& shape, CUstream stream, void** params,
            void** extra) {
  const Context& context = require_context();
  const Function& f = resolve(handle);
  const Context* const owner = stream_of(stream).context;
  if (owner != &context)
    fail(CUDA_ERROR_INVALID_HANDLE, "launch of " + f.kernel->name + " into a stream of device " +
                                        std::to_string(owner->device) + ", current is " +
                                        std::to_string(context.device));
  decode(f);
  check_dimensions(f, shape);
  check_shared(f, shape);

  auto job = std::make_shared<Launch>();
  std::copy(shape.grid, shape.grid + 3, job->grid);
  std::copy(shape.block, shape.block + 3, job->block);
  std::copy(shape.cluster, shape.cluster + 3, job->cluster);
  job->dynamic_shared = shape.shared;
  job->device = context.device;
  job->peers = context.reachable();
  job->params = packed(*f.kernel, params, extra);
  enqueue(stream, CU_GRAPH_NODE_TYPE_KERNEL, f.kernel->name,
          [module = f.module, kernel = f.kernel, job] {
            const Fault fault = exec_launch(*module, *kernel, *job);
            if (fault.code) fail(static_cast<CUresult>(fault.code), fault.text);
          });
}

}  // namespace vgpu
