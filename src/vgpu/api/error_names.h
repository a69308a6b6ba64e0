// Names and descriptions of error codes.
#pragma once

namespace vgpu {

struct ErrorName {
  int code;
  const char* driver;   // CUDA_ERROR_...
  const char* runtime;  // cudaError...
  const char* text;
};
const ErrorName* error_name(int code);  // null for codes that nothing here returns

}  // namespace vgpu
