#include "vgpu/embedded.h"

#include "vgpu/api/call.h"
#include "vgpu/api/context.h"
#include "vgpu/api/device.h"

namespace vgpu {

std::string finish() {
  bool failed = false;
  const CUresult result = call(__func__, [&] {
    for (int device = 0; device < device_count(); ++device) {
      Context& context = *primary_context(device);
      scheduler().finish_all(&context);
      failed = failed || context.error != CUDA_SUCCESS;
      context.error = CUDA_SUCCESS;
    }
  });
  const std::string text = take_message();
  if (!text.empty() || (!failed && result == CUDA_SUCCESS)) return text;
  return "an operation of the virtual GPU failed";
}

}  // namespace vgpu
