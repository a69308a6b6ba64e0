// What a kernel's code takes of the current device, asked for before and after a launch.
#include <cxxabi.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "device/launch.h"

namespace convnet {
namespace {

// The kernel's name as the source has it, template arguments included, where the runtime knows it.
std::string kernel_name(const void* kernel) {
#if CUDART_VERSION >= 12030
  const char* name = nullptr;
  if (cudaFuncGetName(&name, kernel) == cudaSuccess) {
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> text(
        abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
    return status == 0 ? text.get() : name;
  }
  cudaGetLastError();
#else
  (void)kernel;
#endif
  return "the kernel";
}

std::string shared_bytes_text(std::size_t static_bytes, std::size_t dynamic_bytes) {
  return std::to_string(static_bytes) + " static and " + std::to_string(dynamic_bytes) +
         " dynamic bytes of shared memory";
}

std::string text(dim3 size) {
  return "(" + std::to_string(size.x) + ", " + std::to_string(size.y) + ", " +
         std::to_string(size.z) + ")";
}

}  // namespace

const KernelCode& kernel_code(OpName op, const void* kernel) {
  static std::mutex mutex;
  static auto* const known = new std::map<std::pair<const void*, int>, KernelCode>;
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice", op);
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known->find({kernel, device});
  if (found != known->end()) return found->second;
  cudaFuncAttributes attributes;
  check_cuda(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes", op);
  KernelCode code{};
  code.ptx_version = attributes.ptxVersion;
  code.binary_version = attributes.binaryVersion;
  code.static_shared_bytes = attributes.sharedSizeBytes;
  int most_shared_bytes = 0;
  check_cuda(
      cudaDeviceGetAttribute(&most_shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
      "cudaDeviceGetAttribute", op);
  code.most_shared_bytes = static_cast<std::size_t>(most_shared_bytes);
  return known->emplace(std::make_pair(kernel, device), code).first->second;
}

void allow_shared_memory(OpName op, const void* kernel, std::size_t dynamic_bytes) {
  const KernelCode& code = kernel_code(op, kernel);
  const std::size_t most = code.most_shared_bytes - code.static_shared_bytes;
  if (dynamic_bytes > most) {
    throw std::runtime_error(std::string(op.name) + ": " + op.file + ":" + std::to_string(op.line) +
                             ": " + kernel_name(kernel) + " takes " +
                             shared_bytes_text(code.static_shared_bytes, dynamic_bytes) +
                             "; a block on this device has at most " +
                             std::to_string(code.most_shared_bytes) + " bytes in all");
  }
  // All that there is, not what this launch takes: it must not take away what an earlier one got
  // that was captured and will run later.
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(most)),
             "cudaFuncSetAttribute", op);
}

void check_launched(cudaError_t error, OpName op, const void* kernel, dim3 grid, dim3 block,
                    std::size_t dynamic_bytes) {
  if (error == cudaSuccess) return;
  std::string what =
      "launch of " + kernel_name(kernel) + ", grid " + text(grid) + ", block " + text(block);
  cudaFuncAttributes attributes;  // not to be had after some errors
  if (cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess) {
    what += " of at most " + std::to_string(attributes.maxThreadsPerBlock) + " threads, " +
            std::to_string(attributes.numRegs) + " registers a thread, " +
            shared_bytes_text(attributes.sharedSizeBytes, dynamic_bytes);
  }
  cudaGetLastError();  // else the next launch would report it
  check_cuda(error, what.c_str(), op);
}

}  // namespace convnet
