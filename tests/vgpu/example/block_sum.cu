// The sum of the elements of each block of 128, by a CUDA program that knows of no virtual GPU.
#include <cuda_runtime.h>

namespace {

constexpr int kThreads = 128;

__global__ void block_sum_kernel(const float* x, float* y, int n) {
  __shared__ float sums[kThreads];
  const int thread = static_cast<int>(threadIdx.x), i = blockIdx.x * kThreads + thread;
  sums[thread] = i < n ? x[i] : 0.0f;
  for (int half = kThreads / 2; half > 0; half /= 2) {
#ifndef WITHOUT_BARRIER
    __syncthreads();
#endif
    if (thread < half) sums[thread] += sums[thread + half];
  }
  if (thread == 0) y[blockIdx.x] = sums[0];
}

}  // namespace

// y has one element for each 128 of x. Returns what went wrong, or "no error".
extern "C" const char* block_sums(const float* x, float* y, int n) {
  const int blocks = (n + kThreads - 1) / kThreads;
  float *device_x = nullptr, *device_y = nullptr;
  cudaMalloc(&device_x, n * sizeof(float));
  cudaMalloc(&device_y, blocks * sizeof(float));
  cudaMemcpy(device_x, x, n * sizeof(float), cudaMemcpyHostToDevice);
  block_sum_kernel<<<blocks, kThreads>>>(device_x, device_y, n);
  cudaMemcpy(y, device_y, blocks * sizeof(float), cudaMemcpyDeviceToHost);
  cudaFree(device_x);
  cudaFree(device_y);
  return cudaGetErrorString(cudaGetLastError());
}
