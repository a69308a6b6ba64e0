// What this backend is and what it runs on.
#include <string>

#include "device/launch.h"
#include "ops.h"

namespace convnet {

namespace {

__global__ void probe_kernel() {}

// "13.0" of 13000.
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Why there is no usable device, given what cudaGetDeviceCount() said. Its own message speaks of an
// insufficient driver also where there is none at all.
std::string missing_reason(cudaError_t error) {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  cudaGetLastError();
  if (driver == 0) return "no NVIDIA driver is installed, or it is not visible here";
  if (error == cudaErrorInsufficientDriver) {
    return "the NVIDIA driver is for CUDA " + version_text(driver) + ", this build needs " +
           version_text(CUDART_VERSION) + ": update the driver";
  }
  if (error == cudaSuccess || error == cudaErrorNoDevice) {
    return "the NVIDIA driver is there, but no GPU is visible (CUDA_VISIBLE_DEVICES?)";
  }
  return std::string(cudaGetErrorString(error)) + " (" + cudaGetErrorName(error) + ")";
}

// Makes `device` current, and the one before it when it goes.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    cudaGetDevice(&before_);
    check_cuda(cudaSetDevice(device), "cudaSetDevice", "device_description");
  }
  ~CurrentDevice() { cudaSetDevice(before_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

// Throws when this build has no machine code for the device, and no PTX that could become some.
void check_has_code(int device, const std::string& name) {
  const CurrentDevice current(device);
  cudaFuncAttributes attributes;
  const cudaError_t error =
      cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(probe_kernel));
  cudaGetLastError();
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorUnsupportedPtxVersion ||
      error == cudaErrorInvalidDeviceFunction) {
    throw std::runtime_error("device_description: this build has no code for " + name +
                             "; it has " + build_description() +
                             "; set CONVNET_CUDA_ARCHS and build again");
  }
  check_cuda(error, "cudaFuncGetAttributes", "device_description");
}

}  // namespace

void start_backend() {}

const char* backend_name() { return "cuda"; }

Memory backend_memory() { return Memory::kDevice; }

void grant_memory(const std::vector<MemoryRange>&) {}

void revoke_memory(const char*) {}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // else the next launch would report it
  return 0;
}

int current_device() {
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) cudaGetLastError();  // the launch will say more
  return device;
}

void set_current_device(int device) {
  if (cudaSetDevice(device) != cudaSuccess) cudaGetLastError();  // the launch will say more
}

int memory_device(const void* data) {
  cudaPointerAttributes attributes;
  if (cudaPointerGetAttributes(&attributes, data) != cudaSuccess) {
    cudaGetLastError();  // no driver, say: the launch will say more
    return kAnyDevice;
  }
  if (attributes.type == cudaMemoryTypeUnregistered) return kNoDevice;
  return attributes.type == cudaMemoryTypeDevice ? attributes.device : kAnyDevice;
}

void wait_for_stream(const char* op, Stream stream, Stream other) {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate", op);
  cudaError_t error = cudaEventRecord(event, static_cast<cudaStream_t>(other));
  if (error == cudaSuccess) {
    error = cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), event, 0);
  }
  cudaEventDestroy(event);  // the wait goes on without it
  check_cuda(error, "waiting for the stream that an array is written on", op);
}

// Throws std::runtime_error with the reason where the device cannot be used.
std::string device_description(int device) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (error != cudaSuccess || count == 0) {
    throw std::runtime_error("device_description: " + missing_reason(error));
  }
  if (device < 0 || device >= count) {
    fail("device_description", "device", "0 to " + std::to_string(count - 1),
         std::to_string(device));
  }
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties",
             "device_description");
  int driver = 0;
  check_cuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion", "device_description");
  const std::string name = std::string(properties.name) + ", sm_" +
                           std::to_string(properties.major) + std::to_string(properties.minor);
  check_has_code(device, name);
  return name + ", " + std::to_string(properties.totalGlobalMem >> 30) + " GiB, driver for CUDA " +
         version_text(driver);
}

// CONVNET_CUDA_ARCHS is what the build asked nvcc for, for example "sm_80 sm_90, PTX 90".
std::string build_description() {
  std::string text = "CUDA " + version_text(CUDART_VERSION);
#ifdef CONVNET_CUDA_ARCHS
  text += "; " CONVNET_CUDA_ARCHS;
#endif
  return text;
}

int thread_count() { return 0; }

void set_thread_count(int) {
  throw std::invalid_argument("set_thread_count: the cuda backend does not run on CPU threads");
}

}  // namespace convnet
