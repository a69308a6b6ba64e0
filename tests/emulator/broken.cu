// Kernels with one fault each. The comment MARK: name behind a line is where the emulator has to
// place the error; test_emulator.py reads it.
#include "harness.h"

using namespace convnet;

namespace {

constexpr int kThreads = 64;

// ---- missing barriers --------------------------------------------------------------------------

__global__ void missing_barrier_kernel(const float* x, float* y) {
  CONVNET_SHARED(tile, float[kThreads]);
  tile[threadIdx.x] = x[threadIdx.x];
  // no __syncthreads()
  y[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];  // MARK: missing_barrier
}

// The tile is written again while others may still read it.
__global__ void missing_second_barrier_kernel(const float* x, float* y) {
  CONVNET_SHARED(tile, float[kThreads]);
  float sum = 0.0f;
  for (int round = 0; round < 3; ++round) {
    tile[threadIdx.x] = x[threadIdx.x] + static_cast<float>(round);  // MARK: missing_second_barrier
    __syncthreads();
    sum += tile[(threadIdx.x + 32) % kThreads];
    // no __syncthreads()
  }
  y[threadIdx.x] = sum;
}

__global__ void missing_syncwarp_kernel(const float* x, float* y) {
  CONVNET_SHARED(tile, float[kThreads]);
  const unsigned t = threadIdx.x;
  tile[t] = x[t];
  // no __syncwarp()
  y[t] = tile[t ^ 1];  // MARK: missing_syncwarp
}

// Waited for, but only by the thread that copied.
__global__ void async_without_barrier_kernel(const float* x, float* y) {
  CONVNET_SHARED(tile, float[kThreads]);
  const unsigned t = threadIdx.x;
  cp_async<4>(&tile[t], x + t, true);
  cp_async_commit();
  cp_async_wait<0>();
  y[t] = tile[kThreads - 1 - t];  // MARK: async_without_barrier
}

// ---- reads of what is not there ----------------------------------------------------------------

__global__ void unwritten_shared_kernel(const float* x, float* y) {
  CONVNET_SHARED(tile, float[kThreads + 1]);
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x + 1];  // MARK: unwritten_shared
}

__global__ void async_without_wait_kernel(const float* x, float* y) {
  CONVNET_SHARED(tile, float[kThreads]);
  const unsigned t = threadIdx.x;
  cp_async<4>(&tile[t], x + t, true);
  cp_async_commit();
  __syncthreads();
  y[t] = tile[t];  // MARK: async_without_wait
  cp_async_wait<0>();
}

// One group too many may still be under way.
__global__ void async_wait_too_few_kernel(const float* x, float* y) {
  CONVNET_SHARED(tile, float[2][kThreads]);
  const unsigned t = threadIdx.x;
  for (int i = 0; i < 2; ++i) {
    cp_async<4>(&tile[i][t], x + t, true);
    cp_async_commit();
  }
  cp_async_wait<1>();
  y[t] = tile[0][t];
  y[t] += tile[1][t];  // MARK: async_wait_too_few
}

// ---- threads that do not meet ------------------------------------------------------------------

__global__ void exit_before_barrier_kernel(const float* x, float* y) {
  if (threadIdx.x >= 50) return;
  y[threadIdx.x] = x[threadIdx.x];
  __syncthreads();  // MARK: exit_before_barrier
}

__global__ void two_barriers_kernel(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();  // MARK: two_barriers
  }
}

__global__ void uneven_loop_kernel(const float* x, float* y) {
  float sum = 0.0f;
  for (unsigned i = 0; i <= threadIdx.x / 32; ++i) {
    sum += x[i];
    __syncthreads();  // MARK: uneven_loop
  }
  y[threadIdx.x] = sum;
}

__global__ void shuffle_in_branch_kernel(const float* x, float* y) {
  float value = x[threadIdx.x];
  if (threadIdx.x % 2 == 0)
    value += __shfl_xor_sync(kFullWarp, value, 2);  // MARK: shuffle_in_branch
  __syncthreads();
  y[threadIdx.x] = value;
}

__global__ void different_operations_kernel(const float* x, float* y) {
  const float value = x[threadIdx.x];
  if (threadIdx.x % 32 < 16) {
    y[threadIdx.x] = __shfl_sync(kFullWarp, value, 0);
  } else {
    y[threadIdx.x] =
        static_cast<float>(__ballot_sync(kFullWarp, value > 0));  // MARK: different_operations
  }
}

__global__ void mask_without_self_kernel(const float* x, float* y) {
  y[threadIdx.x] = __shfl_sync(0x0000fffeu, x[threadIdx.x], 1);  // MARK: mask_without_self
}

__global__ void mma_in_part_kernel(const float*, float* y) {
  const unsigned a[4] = {}, b[2] = {};
  float d[4] = {};
  if (threadIdx.x >= 8) return;
  mma_m16n8k8_tf32(d, a, b);  // MARK: mma_in_part
  y[threadIdx.x] = d[0];
}

// ---- outside of memory -------------------------------------------------------------------------

__global__ void shared_write_overrun_kernel(const float* x, float* y) {
  CONVNET_SHARED(tile, float[kThreads]);   // MARK: shared_write_overrun declaration
  tile[threadIdx.x + 1] = x[threadIdx.x];  // MARK: shared_write_overrun
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}

__global__ void shared_read_overrun_kernel(const float* x, float* y) {
  CONVNET_DYNAMIC_SHARED(tile, float);
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x + 1];  // MARK: shared_read_overrun
}

__global__ void global_overrun_kernel(const float* x, float* y) {
  y[threadIdx.x + 1] = x[threadIdx.x];  // MARK: global_overrun
}

// A page behind the array lies its guard page.
__global__ void far_overrun_kernel(const float* x, float* y) {
  y[threadIdx.x + 1024] = x[threadIdx.x];  // MARK: far_overrun
}

struct Table {
  float* pointers[2];
};

__global__ void table_kernel(const float* x, Table table) {
  table.pointers[threadIdx.x % 2][threadIdx.x] = x[threadIdx.x];  // MARK: other_device_in_table
}

__global__ void null_kernel(const float* x, float* y) {
  if (threadIdx.x == 3) y = nullptr;
  if (threadIdx.x == 3) *y = x[0];  // MARK: null_pointer
}

__global__ void misaligned_kernel(const float* x, float* y) {
  store4(y, load4(x + threadIdx.x));  // MARK: misaligned
}

__global__ void misaligned_async_kernel(const float* x, float* y) {
  CONVNET_SHARED(tile, float[kThreads + 4]);
  cp_async<16>(&tile[threadIdx.x], x, true);  // MARK: misaligned_async
  y[threadIdx.x] = 0.0f;
}

// ---- the rest ----------------------------------------------------------------------------------

__device__ __attribute__((noinline)) float recurse(const float* x, int depth) {
  volatile float frame[512];
  for (int i = 0; i < 512; ++i) frame[i] = x[0];  // MARK: stack_overflow
  return depth == 0 ? frame[3] : recurse(x, depth - 1) + frame[depth % 512];
}

__global__ void stack_overflow_kernel(const float* x, float* y) {
  y[threadIdx.x] = recurse(x, static_cast<int>(x[1]) + 100000);
}

__global__ void trap_kernel(const float* x, float* y) {
  if (threadIdx.x == 5 && blockIdx.x == 2) __trap();  // MARK: trap
  y[threadIdx.x] = x[threadIdx.x];
}

__global__ void divide_kernel(const float* x, float* y) {
  const int divisor = static_cast<int>(x[0] - x[0]);
  y[threadIdx.x] = static_cast<float>(7 / divisor);  // MARK: divide
}

// 128 static bytes: with 48 KB more a launch needs cudaFuncSetAttribute.
__global__ void shared_kernel(const float* x, float* y) {
  CONVNET_SHARED(tile, float[32]);  // MARK: shared
  CONVNET_DYNAMIC_SHARED(more, float);
  tile[threadIdx.x % 32] = more[threadIdx.x] = 0.0f;
  y[threadIdx.x] = x[threadIdx.x];
}

__global__ void large_static_kernel(const float* x, float* y) {
  CONVNET_SHARED(tile, float[48 * 1024 / 4 + 1]);  // MARK: large_static
  tile[threadIdx.x] = 0.0f;
  y[threadIdx.x] = x[threadIdx.x];
}

__global__ void good_kernel(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }

using Kernel = void (*)(const float*, float*);

Bits run(Kernel kernel, int threads = kThreads, std::size_t dynamic_shared_bytes = 0,
         int blocks = 3) {
  const Bits x = whole_numbers(static_cast<std::size_t>(kThreads), 1);
  Bits y(static_cast<std::size_t>(kThreads));
  launch("broken_op", kernel, dim3(static_cast<unsigned>(blocks)),
         dim3(static_cast<unsigned>(threads)), dynamic_shared_bytes, nullptr, x.data(), y.data());
  return y;
}

float* device_memory(int device, std::size_t count) {
  float* pointer = nullptr;
  expect(cudaSetDevice(device) == cudaSuccess, "cudaSetDevice");
  expect(cudaMalloc(&pointer, count * sizeof(float)) == cudaSuccess, "cudaMalloc");
  expect(cudaMemset(pointer, 0, count * sizeof(float)) == cudaSuccess, "cudaMemset");
  return pointer;
}

Bits run_on_device(Kernel kernel) {
  float* x = device_memory(0, kThreads);
  float* y = device_memory(0, kThreads);
  launch("broken_op", kernel, dim3(1), dim3(kThreads), 0, nullptr, x, y);
  return {};
}

#ifdef CONVNET_EMULATOR
// As <<<>>> would, without the cudaFuncSetAttribute that launch() does.
Bits run_unasked(std::size_t dynamic_shared_bytes) {
  const Bits x = whole_numbers(kThreads, 1);
  Bits y(kThreads);
  emulator::launch_kernel("broken_op", emulator::CallSite::here(), shared_kernel, dim3(1),
                          dim3(kThreads), dynamic_shared_bytes, x.data(), y.data());
  return y;
}
#endif

Bits other_device() {
  float* y = device_memory(1, kThreads);
  float* x = device_memory(0, kThreads);
  const dim3 block(kThreads);
  launch("broken_op", good_kernel, dim3(1), block, 0, nullptr, x, y);  // MARK: other_device
  return {};
}

Bits other_device_in_table() {
  float* there = device_memory(1, kThreads);
  float* here = device_memory(0, kThreads);
  launch("broken_op", table_kernel, dim3(1), dim3(kThreads), 0, nullptr, here,
         Table{{here, there}});
  return {};
}

// A launch after a failed one works.
Bits after_an_error() {
  bool threw = false;
  try {
    run(two_barriers_kernel);
  } catch (const std::runtime_error&) {
    threw = true;
  }
  expect(threw, "the first launch throws");
  const Bits y = run(good_kernel);
  expect(y == whole_numbers(kThreads, 1), "the second launch works");
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const auto simple = [](Kernel kernel) { return [kernel] { return run(kernel); }; };
  const Cases cases = {
      {"missing_barrier", simple(missing_barrier_kernel)},
      {"missing_second_barrier", simple(missing_second_barrier_kernel)},
      {"missing_syncwarp", simple(missing_syncwarp_kernel)},
      {"async_without_barrier", simple(async_without_barrier_kernel)},
      {"unwritten_shared", simple(unwritten_shared_kernel)},
      {"async_without_wait", simple(async_without_wait_kernel)},
      {"async_wait_too_few", simple(async_wait_too_few_kernel)},
      {"exit_before_barrier", simple(exit_before_barrier_kernel)},
      {"two_barriers", simple(two_barriers_kernel)},
      {"uneven_loop", simple(uneven_loop_kernel)},
      {"shuffle_in_branch", simple(shuffle_in_branch_kernel)},
      {"different_operations", simple(different_operations_kernel)},
      {"mask_without_self", simple(mask_without_self_kernel)},
      {"mma_in_part", [] { return run(mma_in_part_kernel, 32); }},
      {"shared_write_overrun", simple(shared_write_overrun_kernel)},
      {"shared_read_overrun",
       [] { return run(shared_read_overrun_kernel, kThreads, kThreads * sizeof(float)); }},
      {"global_overrun", [] { return run(global_overrun_kernel, kThreads, 0, 1); }},
      {"device_overrun", [] { return run_on_device(global_overrun_kernel); }},
      {"far_overrun", [] { return run_on_device(far_overrun_kernel); }},
      {"other_device", other_device},
      {"other_device_in_table", other_device_in_table},
      {"null_pointer", simple(null_kernel)},
      {"misaligned", [] { return run(misaligned_kernel, 2); }},
      {"misaligned_async", simple(misaligned_async_kernel)},
      {"stack_overflow", simple(stack_overflow_kernel)},
      {"trap", simple(trap_kernel)},
      {"divide", simple(divide_kernel)},
      {"large_static", simple(large_static_kernel)},
      {"large_shared", [] { return run(shared_kernel, kThreads, 227 * 1024); }},
      {"larger_dynamic", [] { return run(shared_kernel, kThreads, 227 * 1024 + 16); }},
#ifdef CONVNET_EMULATOR
      {"shared_unasked", [] { return run_unasked(48 * 1024); }},
      {"dynamic_unasked", [] { return run_unasked(48 * 1024 + 16); }},
#endif
      {"no_dynamic_shared", [] { return run(shared_read_overrun_kernel); }},
      {"too_many_threads", [] { return run(good_kernel, 2000); }},
      {"empty_grid", [] { return run(good_kernel, kThreads, 0, 0); }},
      {"after_an_error", after_an_error},
  };
  return run_case(cases, argc, argv);
}
