// Kernels without a fault: every order of threads gives the same bits, which are the right ones.
//
// They run on a GPU, too, which is how the emulator's idea of the tensor cores' fragments is
// checked:
//   nvcc -std=c++17 -arch=sm_80 -Isrc tests/emulator/right.cu -o right && ./right mma_tf32
#include "harness.h"

using namespace convnet;

namespace {

// ---- C = A B with shared tiles, double-buffered by cp.async ------------------------------------

constexpr int kTile = 32, kDepth = 8;

__global__ void __launch_bounds__(256)
    gemm_kernel(const float* a, const float* b, float* c, int m, int n, int k) {
  CONVNET_SHARED(tile_a, float[2][kTile][kDepth]);
  CONVNET_SHARED(tile_b, float[2][kDepth][kTile]);
  const int thread = static_cast<int>(threadIdx.x);
  const int row0 = static_cast<int>(blockIdx.y) * kTile,
            column0 = static_cast<int>(blockIdx.x) * kTile;
  const auto load = [&](int buffer, int k0) {
    const int row = thread / kDepth, column = thread % kDepth;
    cp_async<4>(&tile_a[buffer][row][column], a + (row0 + row) * k + k0 + column,
                row0 + row < m && k0 + column < k);
    const int depth = thread / kTile, column_b = thread % kTile;
    cp_async<4>(&tile_b[buffer][depth][column_b], b + (k0 + depth) * n + column0 + column_b,
                k0 + depth < k && column0 + column_b < n);
    cp_async_commit();
  };
  float sum[4] = {};
  const int column = thread % kTile, row = thread / kTile;
  load(0, 0);
  int buffer = 0;
  for (int k0 = 0; k0 < k; k0 += kDepth) {
    load(buffer ^ 1, k0 + kDepth);
    cp_async_wait<1>();
    __syncthreads();
    for (int depth = 0; depth < kDepth; ++depth) {
      for (int i = 0; i < 4; ++i) {
        sum[i] += tile_a[buffer][row + 8 * i][depth] * tile_b[buffer][depth][column];
      }
    }
    __syncthreads();
    buffer ^= 1;
  }
  for (int i = 0; i < 4; ++i) {
    const int r = row0 + row + 8 * i;
    if (r < m && column0 + column < n) c[r * n + column0 + column] = sum[i];
  }
}

Bits naive_product(const Bits& a, const Bits& b, int m, int n, int k) {
  Bits c(static_cast<std::size_t>(m * n));
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0.0;
      for (int l = 0; l < k; ++l) sum += static_cast<double>(a[i * k + l]) * b[l * n + j];
      c[i * n + j] = static_cast<float>(sum);
    }
  }
  return c;
}

Bits gemm() {
  const int m = 77, n = 93, k = 45;
  const Bits a = whole_numbers(m * k, 1), b = whole_numbers(k * n, 2);
  const OnDevice<float> device_a(a), device_b(b), device_c(Bits(m * n, -1.0f));
  launch("gemm", gemm_kernel, dim3((n + kTile - 1) / kTile, (m + kTile - 1) / kTile), dim3(256), 0,
         nullptr, device_a.data(), device_b.data(), device_c.data(), m, n, k);
  const Bits c = device_c.values();
  expect(c == naive_product(a, b, m, n, k), "gemm");
  return c;
}

// ---- tensor-core instructions against the naive product ----------------------------------------
// One warp multiplies 16 x 16 by 16 x 8. Every element of A and B is another number, so a wrong
// place in a fragment gives a wrong product.

__global__ void mma_tf32_kernel(const float* a, const float* b, float* c) {
  const int group = static_cast<int>(threadIdx.x) / 4, place = static_cast<int>(threadIdx.x) % 4;
  float d[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  for (int k0 = 0; k0 < 16; k0 += 8) {
    const unsigned fragment_a[4] = {
        to_tf32(a[group * 16 + k0 + place]), to_tf32(a[(group + 8) * 16 + k0 + place]),
        to_tf32(a[group * 16 + k0 + place + 4]), to_tf32(a[(group + 8) * 16 + k0 + place + 4])};
    const unsigned fragment_b[2] = {to_tf32(b[(k0 + place) * 8 + group]),
                                    to_tf32(b[(k0 + place + 4) * 8 + group])};
    mma_m16n8k8_tf32(d, fragment_a, fragment_b);
  }
  for (int i = 0; i < 4; ++i) c[(group + 8 * (i / 2)) * 8 + 2 * place + i % 2] = d[i];
}

// A and B through shared memory and ldmatrix: A as stored, B [k][n] transposed on the way.
__global__ void mma_bf16_kernel(const float* a, const float* b, float* c) {
  CONVNET_SHARED(shared_a, unsigned[16][8]);  // pairs of bf16
  CONVNET_SHARED(shared_b, unsigned[16][4]);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 16 * 8; i += 32) {
    shared_a[i / 8][i % 8] = pack_bf16(a[2 * i], a[2 * i + 1]);
  }
  for (int i = lane; i < 16 * 4; i += 32) {
    shared_b[i / 4][i % 4] = pack_bf16(b[2 * i], b[2 * i + 1]);
  }
  __syncwarp();
  unsigned fragment_a[4], fragment_b[2];
  // Matrices 0..3: rows 0-7 and 8-15 of columns 0-7, then of columns 8-15.
  ldmatrix<4>(fragment_a, &shared_a[lane % 16][lane / 16 * 4]);
  ldmatrix<2, true>(fragment_b, &shared_b[lane % 16][0]);
  float d[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  mma_m16n8k16_bf16(d, fragment_a, fragment_b);
  const int group = lane / 4, place = lane % 4;
  for (int i = 0; i < 4; ++i) c[(group + 8 * (i / 2)) * 8 + 2 * place + i % 2] = d[i];
}

Bits mma(void (*kernel)(const float*, const float*, float*)) {
  Bits a(16 * 16), b(16 * 8);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i) - 100.0f;
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i * i % 251) - 120.0f;
  Bits expected = naive_product(a, b, 16, 8, 16);
  for (float& value : expected) value += 1.0f;
  const OnDevice<float> device_a(a), device_b(b), device_c(Bits(16 * 8));
  launch("mma", kernel, dim3(1), dim3(32), 0, nullptr, device_a.data(), device_b.data(),
         device_c.data());
  expect(device_c.values() == expected, "mma");
  return expected;
}

// Each ldmatrix form, on a matrix whose elements are their own indices.
template <int matrices, bool transposed>
__global__ void ldmatrix_kernel(float* y) {
  CONVNET_SHARED(rows, unsigned short[32][8]);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 8; ++i) rows[lane][i] = static_cast<unsigned short>(lane * 8 + i);
  __syncwarp();
  unsigned registers[matrices];
  ldmatrix<matrices, transposed>(registers, rows[lane]);
  for (int m = 0; m < matrices; ++m) {
    y[(m * 32 + lane) * 2] = static_cast<float>(registers[m] & 0xffffu);
    y[(m * 32 + lane) * 2 + 1] = static_cast<float>(registers[m] >> 16);
  }
}

template <int matrices, bool transposed>
Bits ldmatrix_form() {
  const OnDevice<float> device_y(Bits(matrices * 64));
  launch("ldmatrix", ldmatrix_kernel<matrices, transposed>, dim3(1), dim3(32), 0, nullptr,
         device_y.data());
  const Bits y = device_y.values();
  for (int m = 0; m < matrices; ++m) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int half = 0; half < 2; ++half) {
        const int fixed = lane / 4, pair = lane % 4 * 2 + half;
        const int row = transposed ? pair : fixed, column = transposed ? fixed : pair;
        expect(y[(m * 32 + lane) * 2 + half] == static_cast<float>((8 * m + row) * 8 + column),
               "ldmatrix");
      }
    }
  }
  return y;
}

Bits ldmatrix_forms() {
  ldmatrix_form<1, false>();
  ldmatrix_form<2, false>();
  ldmatrix_form<1, true>();
  ldmatrix_form<2, true>();
  ldmatrix_form<4, true>();
  return ldmatrix_form<4, false>();
}

__global__ void convert_kernel(const float* x, unsigned* y) {
  y[0] = to_tf32(x[0]);
  y[1] = to_tf32(x[1]);
  y[2] = pack_bf16(x[2], x[3]);
}

Bits conversions() {
  // 1 + 2^-11 is half way between two TF32 numbers; 1 + 2^-8 and 1 + 3 2^-8 between two bf16.
  const Bits x = {1.0f + 1.0f / 2048, -1.0f - 1.0f / 2048, 1.0f + 1.0f / 256, 1.0f + 3.0f / 256};
  const OnDevice<float> device_x(x);
  const OnDevice<unsigned> device_y(std::vector<unsigned>(3));
  launch("convert", convert_kernel, dim3(1), dim3(1), 0, nullptr, device_x.data(), device_y.data());
  const std::vector<unsigned> y = device_y.values();
  expect(y[0] == 0x3f802000u && y[1] == 0xbf802000u, "to_tf32 rounds halves away from zero");
  expect(y[2] == (0x3f80u | 0x3f82u << 16), "pack_bf16 rounds halves to even");
  return {};
}

// ---- copies, warp operations, barriers that count, atomics -------------------------------------

__global__ void async_copy_kernel(const float* x, float* y) {
  CONVNET_DYNAMIC_SHARED(buffer, float);
  const unsigned t = threadIdx.x;
  cp_async<16>(buffer + 4 * t, x + 4 * t, t < 60);
  cp_async_commit();
  cp_async<8>(buffer + 256 + 2 * t, x + 2 * t, t % 2 == 0);
  cp_async_commit();
  cp_async_wait<1>();
  __syncthreads();
  for (int i = 0; i < 4; ++i) y[64 * i + t] = buffer[64 * i + t];
  cp_async_wait<0>();
  __syncthreads();
  for (int i = 0; i < 2; ++i) y[256 + 64 * i + t] = buffer[256 + 64 * i + t];
}

Bits async_copy() {
  const Bits x = whole_numbers(256, 3);
  const OnDevice<float> device_x(x), device_y(Bits(384, 99.0f));
  launch("async_copy", async_copy_kernel, dim3(1), dim3(64), 384 * sizeof(float), nullptr,
         device_x.data(), device_y.data());
  const Bits y = device_y.values();
  for (int i = 0; i < 256; ++i) expect(y[i] == (i < 240 ? x[i] : 0.0f), "cp_async<16>");
  for (int i = 0; i < 128; ++i) expect(y[256 + i] == (i / 2 % 2 == 0 ? x[i] : 0.0f), "cp_async<8>");
  return y;
}

// 48 KB and a bit: only launch() makes that possible.
__global__ void much_shared_kernel(const float* x, float* y) {
  CONVNET_SHARED(first, float[32]);
  CONVNET_DYNAMIC_SHARED(buffer, float);
  const unsigned t = threadIdx.x, last = 48 * 1024 / sizeof(float) - 1;
  first[t] = x[t];
  buffer[last - t] = x[t];
  __syncthreads();
  y[t] = first[31 - t] + buffer[last - 31 + t];
}

Bits much_shared() {
  const Bits x = whole_numbers(32, 3);
  const OnDevice<float> device_x(x), device_y(Bits(32, 99.0f));
  launch("much_shared", much_shared_kernel, dim3(1), dim3(32), 48 * 1024, nullptr, device_x.data(),
         device_y.data());
  const Bits y = device_y.values();
  for (int t = 0; t < 32; ++t) expect(y[t] == 2 * x[31 - t], "shared memory over 48 KB");
  return y;
}

__global__ void warp_kernel(int* y) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int sum = lane;
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kFullWarp, sum, lanes);
  int* mine = y + 16 * threadIdx.x;
  mine[0] = sum;
  mine[1] = __shfl_sync(kFullWarp, lane, 5);
  mine[2] = __shfl_sync(kFullWarp, lane, 5, 8);
  mine[3] = __shfl_up_sync(kFullWarp, lane, 3);
  mine[4] = __shfl_down_sync(kFullWarp, lane, 3, 16);
  mine[5] = static_cast<int>(__ballot_sync(kFullWarp, lane % 3 == 0));
  mine[6] = __any_sync(kFullWarp, lane == 31);
  mine[7] = __all_sync(kFullWarp, lane != 31);
  // The two halves of a warp may do different things when each names itself.
  if (lane < 16) {
    mine[8] = __shfl_xor_sync(0x0000ffffu, lane, 1);
  } else {
    mine[8] = static_cast<int>(__ballot_sync(0xffff0000u, 1));
  }
  __syncwarp();
  mine[9] = __syncthreads_count(lane < 7);
  mine[10] = __syncthreads_or(threadIdx.x == 40);
  mine[11] = __syncthreads_and(threadIdx.x != 40);
}

Bits warp() {
  const OnDevice<int> device_y(std::vector<int>(64 * 16));
  launch("warp", warp_kernel, dim3(1), dim3(64), 0, nullptr, device_y.data());
  const std::vector<int> y = device_y.values();
  Bits bits;
  for (int t = 0; t < 64; ++t) {
    const int lane = t % 32;
    const int expected[12] = {496,
                              5,
                              lane / 8 * 8 + 5,
                              lane < 3 ? lane : lane - 3,
                              lane % 16 < 13 ? lane + 3 : lane,
                              0x49249249,
                              1,
                              0,
                              lane < 16 ? lane ^ 1 : static_cast<int>(0xffff0000u),
                              14,
                              1,
                              0};
    for (int i = 0; i < 12; ++i) {
      expect(y[t * 16 + i] == expected[i], ("warp " + std::to_string(i)).c_str());
      bits.push_back(static_cast<float>(expected[i]));
    }
  }
  return bits;
}

__global__ void histogram_kernel(const float* x, int n, int* bins, unsigned* last_block,
                                 int* largest) {
  CONVNET_SHARED(local, int[17]);
  if (threadIdx.x < 17) local[threadIdx.x] = 0;
  __syncthreads();
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) atomicAdd(&local[static_cast<int>(x[i]) + 8], 1);
  __syncthreads();
  if (threadIdx.x < 17) atomicAdd(&bins[threadIdx.x], local[threadIdx.x]);
  if (i < n) atomicMax(largest, static_cast<int>(x[i]));
  if (threadIdx.x == 0) atomicInc(last_block, gridDim.x);
}

Bits histogram() {
  const Bits x = whole_numbers(1000, 4);
  std::vector<int> expected(17);
  for (const float value : x) ++expected[static_cast<int>(value) + 8];
  const OnDevice<float> device_x(x);
  const OnDevice<int> bins(std::vector<int>(17)), largest(std::vector<int>(1, -100));
  const OnDevice<unsigned> blocks(std::vector<unsigned>(1));
  launch("histogram", histogram_kernel, dim3(8), dim3(128), 0, nullptr, device_x.data(), 1000,
         bins.data(), blocks.data(), largest.data());
  expect(bins.values() == expected, "histogram");
  expect(blocks.values()[0] == 8 && largest.values()[0] == 8, "atomics");
  return Bits(expected.begin(), expected.end());
}

__global__ void index_kernel(int* y) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  y[block * blockDim.x * blockDim.y * blockDim.z + thread] +=
      static_cast<int>(1000 * block + thread);
}

Bits indices() {
  const OnDevice<int> device_y(std::vector<int>(2 * 3 * 5 * 7 * 4 * 3));
  launch("index", index_kernel, dim3(2, 3, 5), dim3(7, 4, 3), 0, nullptr, device_y.data());
  const std::vector<int> y = device_y.values();
  for (int i = 0; i < static_cast<int>(y.size()); ++i)
    expect(y[i] == i / 84 * 1000 + i % 84, "index");
  return {};
}

// ---- devices -----------------------------------------------------------------------------------

__global__ void add_one_kernel(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x] + 1.0f; }

Bits peers() {
  int count = 0, can = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count < 2) return {};
  float *first, *second;
  expect(cudaSetDevice(0) == cudaSuccess && cudaMalloc(&first, 256) == cudaSuccess, "device 0");
  expect(cudaSetDevice(1) == cudaSuccess && cudaMalloc(&second, 256) == cudaSuccess, "device 1");
  expect(cudaDeviceCanAccessPeer(&can, 1, 0) == cudaSuccess && can == 1, "can access");
  expect(cudaDeviceEnablePeerAccess(0, 0) == cudaSuccess, "enable");
  const Bits x = whole_numbers(64, 5);
  Bits y(64);
  expect(cudaMemcpy(first, x.data(), 256, cudaMemcpyHostToDevice) == cudaSuccess, "copy");
  launch("add_one", add_one_kernel, dim3(1), dim3(64), 0, nullptr, first, second);
  expect(cudaMemcpy(y.data(), second, 256, cudaMemcpyDeviceToHost) == cudaSuccess, "copy");
  for (int i = 0; i < 64; ++i) expect(y[i] == x[i] + 1.0f, "add_one over peer memory");
  expect(cudaFree(first) == cudaSuccess && cudaFree(second) == cudaSuccess, "free");
  return y;
}

}  // namespace

int main(int argc, char** argv) {
  const Cases cases = {
      {"gemm", gemm},
      {"mma_tf32", [] { return mma(mma_tf32_kernel); }},
      {"much_shared", much_shared},
      {"mma_bf16", [] { return mma(mma_bf16_kernel); }},
      {"ldmatrix", ldmatrix_forms},
      {"conversions", conversions},
      {"async_copy", async_copy},
      {"warp", warp},
      {"histogram", histogram},
      {"indices", indices},
      {"peers", peers},
  };
  return run_case(cases, argc, argv);
}
