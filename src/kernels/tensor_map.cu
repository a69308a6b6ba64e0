// Tensor maps for device/sm90.h, on the host: the driver encodes them.
#include <cstring>

#include "bfloat16.h"
#include "device/launch.h"
#include "device/sm90.h"
#include "device/vectors.h"

namespace convnet {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function. Found at run time, as libcuda is not linked with: where there is no GPU,
// there is none.
Encode encode_function(OpName op) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                              cudaEnableDefault, &found),
             "cudaGetDriverEntryPointByVersion", op);
#else
  check_cuda(
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found),
      "cudaGetDriverEntryPoint", op);
#endif
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    throw std::runtime_error(std::string(op.name) +
                             ": the CUDA driver has no cuTensorMapEncodeTiled; expected one of "
                             "CUDA 12.0 or newer");
  }
  return reinterpret_cast<Encode>(function);
}

}  // namespace

template <class T>
TensorMap pixel_row_map(OpName op, const T* x, int n, int h, int w, int c, int pixels,
                        int pixel_bytes) {
  constexpr bool kFloat = storage_of<T> == Storage::kFloat32;
  constexpr cuuint64_t kBytes = kFloat ? 4 : 2;
  if (!aligned16(x) || c * kBytes % 16 != 0 || pixels < 1 || pixels > 256 ||
      (pixel_bytes != 64 && pixel_bytes != 32)) {
    throw std::runtime_error(std::string(op.name) + ": no tensor map for " + std::to_string(c) +
                             " channels and boxes of " + std::to_string(pixels) + " pixels of " +
                             std::to_string(pixel_bytes) + " bytes");
  }
  const cuuint64_t sizes[4] = {static_cast<cuuint64_t>(c), static_cast<cuuint64_t>(w),
                               static_cast<cuuint64_t>(h), static_cast<cuuint64_t>(n)};
  const cuuint64_t strides[3] = {kBytes * sizes[0], kBytes * sizes[0] * sizes[1],
                                 kBytes * sizes[0] * sizes[1] * sizes[2]};
  const cuuint32_t box[4] = {static_cast<cuuint32_t>(pixel_bytes / kBytes),
                             static_cast<cuuint32_t>(pixels), 1, 1};
  const cuuint32_t every[4] = {1, 1, 1, 1};
  TensorMap map;
  const CUresult result = encode_function(op)(
      &map, kFloat ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4,
      const_cast<T*>(x), sizes, strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE,
      pixel_bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_32B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw std::runtime_error(std::string(op.name) + ": cuTensorMapEncodeTiled failed with error " +
                             std::to_string(static_cast<int>(result)));
  }
  return map;
}

template TensorMap pixel_row_map(OpName, const float*, int, int, int, int, int, int);
template TensorMap pixel_row_map(OpName, const Bfloat16*, int, int, int, int, int, int);

}  // namespace convnet
