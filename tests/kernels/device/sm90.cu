// The functions of src/kernels/device/sm90.h, each in a small kernel with a result that is known:
// for GPUs, where a mistake in one of them would make a large kernel hang. benchmarks/gpu_check.sh
// runs it; by hand:
//   nvcc -std=c++17 -gencode arch=compute_90a,code=sm_90a -Isrc -o sm90
//   tests/kernels/device/sm90.cu
//     src/kernels/tensor_map.cu src/kernels/launch_limits.cu && ./sm90 wgmma_tf32
#include "harness.h"
#include "kernels/device/launch.h"
#include "kernels/device/mma.h"
#include "kernels/device/sm90.h"

using namespace convnet;

namespace {

// ---- a ring of two stages: thread 128 fills them, 128 others add up what comes -----------------

constexpr int kConsumers = 128, kSteps = 6, kRing = 2;

__global__ void pipeline_kernel(const float* x, float* y) {
  if constexpr (kCompiledForHopper) {
    __shared__ __align__(16) float stages[kRing][kConsumers];
    __shared__ Mbarrier full[kRing], empty[kRing];
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) {
      for (int i = 0; i < kRing; ++i) {
        mbarrier_init(&full[i], 1);
        mbarrier_init(&empty[i], kConsumers);
      }
      mbarrier_init_done();
    }
    __syncthreads();
    if (thread == kConsumers) {
      for (int step = 0; step < kSteps; ++step) {
        const int slot = step % kRing;
        mbarrier_wait(&empty[slot], (step / kRing & 1) ^ 1);
        const unsigned bytes = kConsumers * sizeof(float);
        mbarrier_arrive_expect(&full[slot], bytes);
        bulk_copy(stages[slot], x + step * kConsumers, bytes, &full[slot]);
      }
    } else if (thread < kConsumers) {
      float sum = 0.0f;
      for (int step = 0; step < kSteps; ++step) {
        const int slot = step % kRing;
        mbarrier_wait(&full[slot], step / kRing & 1);
        sum = 2.0f * sum + stages[slot][kConsumers - 1 - thread];
        mbarrier_arrive(&empty[slot]);
      }
      y[thread] = sum;
    }
  }
}

Bits pipeline() {
  const Bits x = whole_numbers(kSteps * kConsumers, 3);
  const OnDevice<float> device_x(x), device_y(Bits(kConsumers, 0.0f));
  launch("pipeline", pipeline_kernel, dim3(2), dim3(kConsumers + 32), 0, nullptr, device_x.data(),
         device_y.data());
  Bits expected(kConsumers, 0.0f);
  for (int step = 0; step < kSteps; ++step) {
    for (int i = 0; i < kConsumers; ++i) {
      expected[i] = 2.0f * expected[i] + x[step * kConsumers + kConsumers - 1 - i];
    }
  }
  expect(device_y.values() == expected, "pipeline");
  return device_y.values();
}

// ---- D = 1 + A B, 64 x n x 8 or 16, for B in rows of kSpan bytes -------------------------------

constexpr int kDepth = 16;

// Both orders of k are those of the instruction: 8 k at a time of TF32, 16 of bfloat16.
template <int kColumns, int kSpan, bool kBf16>
__global__ void wgmma_kernel(const float* a, const unsigned char* b, float* d) {
  if constexpr (kCompiledForHopper) {
    extern __shared__ __align__(128) unsigned char raw[];
    __shared__ Mbarrier arrived;
    unsigned char* const shared = raw + (1024 - shared_address(raw) % 1024) % 1024;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    const int row = thread / 32 * 16 + lane / 4, place = lane % 4;
    if (thread == 0) {
      mbarrier_init(&arrived, 1);
      mbarrier_init_done();
      mbarrier_arrive_expect(&arrived, kColumns * kSpan);
      bulk_copy(shared, b, kColumns * kSpan, &arrived);
    }
    __syncthreads();
    mbarrier_wait(&arrived, 0);
    float sums[kColumns / 8][4];
    unsigned operands[2][4];
    for (int j = 0; j < kColumns / 8; ++j) {
      for (int l = 0; l < 4; ++l) sums[j][l] = 1.0f;
    }
    for (int l = 0; l < 4; ++l) {
      const float* from = a + (row + l % 2 * 8) * kDepth;
      if (kBf16) {
        const int k = 2 * place + l / 2 * 8;
        operands[0][l] = pack_bf16(from[k], from[k + 1]);
      } else {
        operands[0][l] = to_tf32(from[place + l / 2 * 4]);
        operands[1][l] = to_tf32(from[8 + place + l / 2 * 4]);
      }
    }
    const std::uint64_t descriptor = wgmma_descriptor<kSpan>(shared);
    keep_in_place(sums);
    wgmma_fence();
    if constexpr (kBf16) {
      wgmma_bf16<true>(sums, operands[0], descriptor);
    } else {
      wgmma_tf32<true>(sums, operands[0], descriptor);
      wgmma_tf32<true>(sums, operands[1], descriptor + 2);  // 32 bytes, in sixteens
    }
    wgmma_commit();
    wgmma_wait<0>();
    keep_in_place(sums);
    for (int j = 0; j < kColumns / 8; ++j) {
      for (int l = 0; l < 4; ++l) {
        d[(row + l / 2 * 8) * kColumns + 8 * j + 2 * place + l % 2] = sums[j][l];
      }
    }
  }
}

// B [columns][kDepth] as the descriptor wants it: rows of `span` bytes, permuted.
std::vector<unsigned char> swizzled(const Bits& b, int columns, int span, bool bf16) {
  std::vector<unsigned char> bytes(static_cast<std::size_t>(columns * span));
  const int size = bf16 ? 2 : 4;
  for (int column = 0; column < columns; ++column) {
    for (int k = 0; k < kDepth; ++k) {
      const int place = column * span + k * size;
      std::uint32_t bits;
      std::memcpy(&bits, &b[static_cast<std::size_t>(column * kDepth + k)], 4);
      if (bf16) bits >>= 16;  // of small whole numbers the rest is zero
      std::memcpy(&bytes[static_cast<std::size_t>(place ^ (place >> 7 & (span / 16 - 1)) << 4)],
                  &bits, static_cast<std::size_t>(size));
    }
  }
  return bytes;
}

template <int kColumns, int kSpan, bool kBf16>
Bits product() {
  const Bits a = whole_numbers(64 * kDepth, 5), b = whole_numbers(kColumns * kDepth, 6);
  const OnDevice<float> device_a(a), device_d(Bits(64 * kColumns, 0.0f));
  const OnDevice<unsigned char> device_b(swizzled(b, kColumns, kSpan, kBf16));
  launch("wgmma", wgmma_kernel<kColumns, kSpan, kBf16>, dim3(1), dim3(128), 1024 + kColumns * kSpan,
         nullptr, device_a.data(), device_b.data(), device_d.data());
  const Bits d = device_d.values();
  for (int row = 0; row < 64; ++row) {
    for (int column = 0; column < kColumns; ++column) {
      float sum = 1.0f;
      for (int k = 0; k < kDepth; ++k) sum += a[row * kDepth + k] * b[column * kDepth + k];
      expect(d[row * kColumns + column] == sum, "wgmma");
    }
  }
  return d;
}

template <int kSpan, bool kBf16>
Bits products() {
  product<48, kSpan, kBf16>();
  product<64, kSpan, kBf16>();
  product<96, kSpan, kBf16>();
  return product<128, kSpan, kBf16>();
}

// ---- boxes of a tensor -------------------------------------------------------------------------

constexpr int kN = 2, kH = 3, kW = 5, kC = 32, kPixels = 16;

// Copies the row of pixels from column -2 on, and undoes the swizzle.
__global__ void pixel_row_kernel(const __grid_constant__ TensorMap map, bool swizzled, int n,
                                 int row, int channel, float* y) {
  if constexpr (kCompiledForHopper) {
    extern __shared__ __align__(128) unsigned char raw[];
    __shared__ Mbarrier arrived;
    unsigned char* const shared = raw + (1024 - shared_address(raw) % 1024) % 1024;
    if (threadIdx.x == 0) {
      mbarrier_init(&arrived, 1);
      mbarrier_init_done();
      mbarrier_arrive_expect(&arrived, kPixels * 64);
      pixel_row_copy(shared, map, n, row, -2, channel, &arrived);
    }
    __syncthreads();
    mbarrier_wait(&arrived, 0);
    for (int i = static_cast<int>(threadIdx.x); i < kPixels * 16; i += 32) {
      const int byte = 4 * i;
      y[i] =
          *reinterpret_cast<const float*>(shared + (swizzled ? byte ^ (byte >> 7 & 3) << 4 : byte));
    }
  }
}

Bits pixel_rows(bool swizzled) {
  const Bits x = whole_numbers(kN * kH * kW * kC, 9);
  const OnDevice<float> device_x(x), device_y(Bits(kPixels * 16, 0.0f));
  const TensorMap map =
      pixel_row_map("pixel_rows", device_x.data(), kN, kH, kW, kC, kPixels, swizzled);
  Bits all;
  for (int n = 0; n < kN; ++n) {
    for (int row = -1; row <= kH; ++row) {
      launch("pixel_rows", pixel_row_kernel, dim3(1), dim3(32), 1024 + kPixels * 64, nullptr, map,
             swizzled, n, row, 16, device_y.data());
      const Bits y = device_y.values();
      for (int pixel = 0; pixel < kPixels; ++pixel) {
        for (int c = 0; c < 16; ++c) {
          const int column = pixel - 2;
          const bool inside = row >= 0 && row < kH && column >= 0 && column < kW;
          const float right = inside ? x[((n * kH + row) * kW + column) * kC + 16 + c] : 0.0f;
          expect(y[pixel * 16 + c] == right, "pixel_rows");
        }
      }
      all.insert(all.end(), y.begin(), y.end());
    }
  }
  return all;
}

Bits impossible_map() {
  const OnDevice<float> x(Bits(64, 0.0f));
  pixel_row_map("impossible_map", x.data() + 1, 1, 1, 2, 16, 16, true);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const Cases cases = {
      {"pipeline", pipeline},
      {"wgmma_tf32", products<64, false>},
      {"wgmma_bf16", products<32, true>},
      {"wgmma_wide_rows", product<64, 128, true>},
      {"pixel_rows", [] { return pixel_rows(false); }},
      {"pixel_rows_swizzled", [] { return pixel_rows(true); }},
      {"impossible_map", impossible_map},
  };
  return run_case(cases, argc, argv);
}
