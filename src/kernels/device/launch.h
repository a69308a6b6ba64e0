// How a kernel is launched: the only file with <<<>>>.
//
// How to write a kernel here
//   __global__ void __launch_bounds__(256) row_sum_kernel(const float* x, int columns, float* y) {
//     __shared__ __align__(16) float partial[8];
//     float sum = 0.0f;
//     for (int c = threadIdx.x; c < columns; c += 256) sum += x[blockIdx.x * columns + c];
//     sum = block_reduce<8>(sum, partial, Add());  // warp.cuh
//     if (threadIdx.x == 0) y[blockIdx.x] = sum;
//   }
//   void row_sum(..., Stream stream) {
//     launch("row_sum", row_sum_kernel, dim3(rows), dim3(256), 0, stream, x, columns, y);
//   }
// - Plain CUDA. PTX stands in this folder alone, each instruction in a function of its own.
// - Every thread of a block must reach each barrier: no `return` before one.
// - Data passed between lanes through shared memory needs __syncwarp(), also inside one warp.
// - Write `sum += a * b`: nvcc fuses it.
// - Arrays in shared memory are aligned to 16 bytes, and so read in fewer instructions.
// - No static or global variables, no float atomics, no waiting for other blocks.
// The virtual GPU (src/vgpu) runs what nvcc makes of it, checks each access, and names file, line
// and thread where one is wrong. Under VGPU_ORDER=forward, reverse and shuffle:1 the bits must be
// equal.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace convnet {

// An operation's name, with the file and line of the launch.
struct OpName {
  const char* name;
  const char* file;
  int line;
  OpName(const char* name_, const char* file_ = __builtin_FILE(), int line_ = __builtin_LINE())
      : name(name_), file(file_), line(line_) {}
};

// Throws std::runtime_error when `error` is not cudaSuccess: "conv_fprop: conv.cu:12: what: why".
inline void check_cuda(cudaError_t error, const char* what, OpName op) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // else the next launch would report it
  throw std::runtime_error(std::string(op.name) + ": " + op.file + ":" + std::to_string(op.line) +
                           ": " + what + ": " + cudaGetErrorString(error) + " (" +
                           cudaGetErrorName(error) + ")");
}

// What the driver says of a kernel's code on the current device.
struct KernelCode {
  int ptx_version;     // the architecture it was compiled for, such as 80
  int binary_version;  // that of the machine code: newer where the driver made it from PTX
  std::size_t static_shared_bytes;
  std::size_t most_shared_bytes;  // that the device gives a block, static and dynamic together
};

// In launch_limits.cu. The driver is asked once for each kernel and device.
const KernelCode& kernel_code(OpName op, const void* kernel);

// Lets blocks of the kernel have so many bytes, which by themselves they may only have up to 48 KB,
// the static ones included. Throws std::runtime_error when the device has not that many.
void allow_shared_memory(OpName op, const void* kernel, std::size_t dynamic_bytes);

// Throws std::runtime_error with all that the device may have refused when `error`, which is of the
// launch, is not cudaSuccess.
void check_launched(cudaError_t error, OpName op, const void* kernel, dim3 grid, dim3 block,
                    std::size_t dynamic_bytes);

// Queues kernel<<<grid, block, dynamic_shared_bytes, stream>>>(arguments...) on the current device.
// `stream` is a cudaStream_t or null. Throws std::runtime_error, beginning with the op's name, when
// the launch fails.
template <typename... Parameters, typename... Arguments>
void launch(OpName op, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            std::size_t dynamic_shared_bytes, void* stream, Arguments&&... arguments) {
  const void* code = reinterpret_cast<const void*>(kernel);
  if (dynamic_shared_bytes != 0) allow_shared_memory(op, code, dynamic_shared_bytes);
  kernel<<<grid, block, dynamic_shared_bytes, static_cast<cudaStream_t>(stream)>>>(
      std::forward<Arguments>(arguments)...);
  check_launched(cudaGetLastError(), op, code, grid, block, dynamic_shared_bytes);
}

}  // namespace convnet
