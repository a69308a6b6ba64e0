#include "vgpu/api/launch.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "vgpu/api/device.h"
#include "vgpu/api/module.h"
#include "vgpu/api/register_table.h"
#include "vgpu/api/stream.h"
#include "vgpu/exec/grid_dependency.h"

namespace vgpu {

namespace {

std::string text(const unsigned* size) {
  return "(" + std::to_string(size[0]) + ", " + std::to_string(size[1]) + ", " +
         std::to_string(size[2]) + ")";
}

[[noreturn]] void refuse(const Function& f, const std::string& why, CUresult code) {
  fail(code, "launch of " + readable_name(*f.kernel) + " refused: " + why);
}

// That a size in three dimensions is within limits.
void check_size(const Function& f, const char* what, const unsigned* size, const unsigned* most) {
  for (int i = 0; i < 3; ++i)
    if (size[i] == 0 || size[i] > most[i])
      refuse(f,
             std::string(what) + " of " + text(size) + "; from (1, 1, 1) to " + text(most) +
                 " is possible",
             CUDA_ERROR_INVALID_VALUE);
}

void check_block(const Function& f, const LaunchShape& shape) {
  check_size(f, "a block", shape.block, kMaxBlock);
  check_size(f, "a grid", shape.grid, kMaxGrid);
  const unsigned long threads = 1ul * shape.block[0] * shape.block[1] * shape.block[2];
  const std::string asked =
      "a block of " + text(shape.block) + ", " + std::to_string(threads) + " threads; ";
  if (threads > kMaxThreads)
    refuse(f, asked + "at most " + std::to_string(kMaxThreads) + " are possible",
           CUDA_ERROR_INVALID_VALUE);
  if (threads > static_cast<unsigned long>(f.kernel->max_threads))
    refuse(f,
           asked + "the kernel was compiled for at most " + std::to_string(f.kernel->max_threads) +
               " (__launch_bounds__)",
           CUDA_ERROR_INVALID_VALUE);
  const int* const required = f.kernel->required_block;
  for (int i = 0; i < 3 && required[0] != 0; ++i)
    if (shape.block[i] != static_cast<unsigned>(required[i]))
      refuse(f,
             asked + "the kernel was compiled for (" + std::to_string(required[0]) + ", " +
                 std::to_string(required[1]) + ", " + std::to_string(required[2]) + ") (.reqntid)",
             CUDA_ERROR_INVALID_VALUE);
}

void check_shared(const Function& f, const LaunchShape& shape) {
  const long fixed = f.kernel->static_shared, sum = fixed + static_cast<long>(shape.shared);
  const std::string asked = std::to_string(fixed) + " static and " + std::to_string(shape.shared) +
                            " dynamic bytes of shared memory; ";
  if (fixed > kSharedWithoutOptIn)
    refuse(f,
           asked + "at most " + std::to_string(kSharedWithoutOptIn) +
               " can be static: ptxas refuses more",
           CUDA_ERROR_INVALID_VALUE);
  if (sum > limits().shared_per_block)
    refuse(f,
           asked + "a block has at most " + std::to_string(limits().shared_per_block) + " on " +
               capability_text(),
           CUDA_ERROR_INVALID_VALUE);
  if (static_cast<long>(shape.shared) <= shared_room(f)) return;
  if (f.opted_in)
    refuse(f,
           asked + "cudaFuncAttributeMaxDynamicSharedMemorySize allowed " +
               std::to_string(f.max_dynamic) + " dynamic ones",
           CUDA_ERROR_INVALID_VALUE);
  refuse(f,
         asked + "without cudaFuncAttributeMaxDynamicSharedMemorySize at most " +
             std::to_string(kSharedWithoutOptIn) + " in all",
         CUDA_ERROR_INVALID_VALUE);
}

// Returns the kernel's registers, 0 where nobody knows.
int check_registers(const Function& f, const LaunchShape& shape) {
  const int registers = registers_of(f.kernel->name);
  const long threads = 1l * shape.block[0] * shape.block[1] * shape.block[2];
  const long taken = registers_of_block(registers, threads);
  if (taken > kRegistersPerBlock)
    refuse(f,
           "a block of " + text(shape.block) + ", " + std::to_string(threads) + " threads with " +
               std::to_string(registers) + " registers each, takes " + std::to_string(taken) +
               "; a multiprocessor has " + std::to_string(kRegistersPerBlock),
           CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
  return registers;
}

// The cluster of a launch: the one that it names, or the kernel's own.
void check_cluster(const Function& f, LaunchShape* shape) {
  unsigned* const cluster = shape->cluster;
  const int* const required = f.kernel->required_cluster;
  for (int i = 0; i < 3 && required[0] != 0; ++i) {
    if (shape->has_cluster && cluster[i] != static_cast<unsigned>(required[i]))
      refuse(f, "clusters of " + text(cluster) + "; the kernel was compiled for another size",
             CUDA_ERROR_INVALID_CLUSTER_SIZE);
    cluster[i] = static_cast<unsigned>(required[i]);
  }
  if (!shape->has_cluster && required[0] == 0) return;
  shape->has_cluster = true;
  const std::string asked = "clusters of " + text(cluster) + "; ";
  const Limits& l = limits();
  if (l.cluster_blocks == 0)
    refuse(f, asked + capability_text() + " has none", CUDA_ERROR_INVALID_CLUSTER_SIZE);
  const unsigned long blocks = 1ul * cluster[0] * cluster[1] * cluster[2];
  const int most = f.non_portable_cluster ? l.cluster_blocks_allowed : l.cluster_blocks;
  if (blocks == 0 || blocks > static_cast<unsigned long>(most))
    refuse(f,
           asked + "at most " + std::to_string(most) + " blocks are possible" +
               (f.non_portable_cluster ? "" : " without NonPortableClusterSizeAllowed"),
           CUDA_ERROR_INVALID_CLUSTER_SIZE);
  for (int i = 0; i < 3; ++i)
    if (shape->grid[i] % cluster[i] != 0)
      refuse(f, asked + "they do not divide the grid of " + text(shape->grid),
             CUDA_ERROR_INVALID_CLUSTER_SIZE);
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

namespace {

// The kernel that the stream, or its capture, did last, if nothing came after it.
Launch* last_kernel(const Stream& stream) {
  if (stream.capture.session) {
    const std::vector<CUgraphNode>& front = stream.capture.front;
    return front.size() == 1 ? front[0]->kernel.get() : nullptr;
  }
  return stream.kernel && stream.kernel_task == stream.last ? stream.kernel.get() : nullptr;
}
// A programmatic launch after it: of two kernels in a stream, or as an edge of the graph.
void let_overlap(Launch& launch, Launch& before) {
  if (!before.accesses) before.accesses = std::make_shared<GlobalAccesses>(before.kernel->name);
  launch.may_run.push_back(before.accesses);
}
void remember_kernel(Stream& stream, const TaskRef& task, const std::shared_ptr<Launch>& launch) {
  if (stream.capture.session) {
    stream.capture.front[0]->kernel = launch;
    return;
  }
  stream.kernel_task = task;
  stream.kernel = launch;
}

}  // namespace

void launch(CUfunction handle, LaunchShape shape, CUstream stream, void** params, void** extra) {
  const Context& context = require_context();
  const Function& f = resolve(handle);
  const Context* const owner = stream_of(stream).context;
  if (owner != &context)
    refuse(f,
           "the stream is of device " + std::to_string(owner->device) + "; current is " +
               std::to_string(context.device),
           CUDA_ERROR_INVALID_HANDLE);
  decode(f);
  check_block(f, shape);
  check_shared(f, shape);
  check_cluster(f, &shape);

  auto job = std::make_shared<Launch>();
  std::copy(shape.grid, shape.grid + 3, job->grid);
  std::copy(shape.block, shape.block + 3, job->block);
  std::copy(shape.cluster, shape.cluster + 3, job->cluster);
  job->explicit_cluster = shape.has_cluster;
  job->dynamic_shared = shape.shared;
  job->registers = check_registers(f, shape);
  job->device = context.device;
  job->peers = context.reachable();
  job->params = packed(*f.kernel, params, extra);
  job->kernel = f.kernel;
  Stream& queue = stream_of(stream);
  if (shape.programmatic)
    if (Launch* const before = last_kernel(queue)) let_overlap(*job, *before);
  const TaskRef task = enqueue(stream, CU_GRAPH_NODE_TYPE_KERNEL, f.kernel->name,
                               [module = f.module, kernel = f.kernel, job] {
                                 const Fault fault = exec_launch(*module, *kernel, *job);
                                 if (fault.code)
                                   fail(static_cast<CUresult>(fault.code), fault.text);
                               });
  remember_kernel(queue, task, job);
}

}  // namespace vgpu
