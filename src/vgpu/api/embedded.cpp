#include "vgpu/embedded.h"

#include "vgpu/api/call.h"
#include "vgpu/api/context.h"
#include "vgpu/api/device.h"

namespace vgpu {

std::string finish() {
  std::string text;
  const CUresult result = call(__func__, [&] {
    for (int device = 0; device < device_count(); ++device) {
      Context& context = *primary_context(device);
      scheduler().finish_all(&context);
      if (context.error == CUDA_SUCCESS) continue;
      if (text.empty()) text = context.error_text;
      context.error = CUDA_SUCCESS;
    }
  });
  if (result != CUDA_SUCCESS && text.empty()) text = "the virtual GPU cannot finish its work";
  return text;
}

}  // namespace vgpu
