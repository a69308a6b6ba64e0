// The products of wgmma_conv.cu: how pixels become operands, and what is started in which order for
// each way to form products. T is a WgmmaTile.
#pragma once

#include "kernels/device/mma.h"
#include "kernels/device/sm90.h"
#include "mma.cuh"

namespace convnet {

// A of a warp for the channels of a step, as wgmma takes it: for every 32 bytes of them four
// registers, raw[] as ldmatrix gives them.
template <class T, Precision kPrecision = T::kPrecision>
struct PixelOperand {
  unsigned a[T::kProducts][4];
  __device__ void set(const unsigned (&raw)[T::kProducts][4]) {
#pragma unroll
    for (int i = 0; i < T::kProducts; ++i) {
#pragma unroll
      for (int l = 0; l < 4; ++l) {
        a[i][l] = kPrecision == Precision::kTf32 ? rounded_to_tf32(raw[i][l]) : raw[i][l];
      }
    }
  }
  __device__ void keep() {
#pragma unroll
    for (int i = 0; i < T::kProducts; ++i) keep_in_place(a[i]);
  }
};
template <class T>
struct PixelOperand<T, Precision::kFp32> {
  unsigned high[2][4], low[2][4];
  __device__ void set(const unsigned (&raw)[2][4]) {
#pragma unroll
    for (int l = 0; l < 8; ++l) {
      high[l / 4][l % 4] = high_part(raw[l / 4][l % 4]);
      low[l / 4][l % 4] = low_part(raw[l / 4][l % 4]);
    }
  }
  __device__ void keep() {
    keep_in_place(high[0]), keep_in_place(high[1]);
    keep_in_place(low[0]), keep_in_place(low[1]);
  }
};

constexpr std::uint64_t kNextProduct = 32 / 16;  // 32 bytes of k further on, in a descriptor

// The sums of a warp. start() begins the products of a step with the stage of filters that a
// descriptor tells. Where it queues, the next step may start before this one is waited for, and
// finish() is for the end of all; else finish() follows the wait for each.
template <class T, Precision kPrecision = T::kPrecision>
struct WarpgroupProduct {
  static constexpr bool kQueues = true;
  MmaSums<T> sums;

  __device__ void begin() {
    clear<T>(sums);
    finish();
  }
  __device__ void start(const PixelOperand<T> (&pixels)[T::kFragmentsM], std::uint64_t b) {
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) {
#pragma unroll
      for (int l = 0; l < T::kProducts; ++l) {
        if constexpr (kPrecision == Precision::kBf16) {
          wgmma_bf16<true>(sums[i], pixels[i].a[l], b + l * kNextProduct);
        } else {
          wgmma_tf32<true>(sums[i], pixels[i].a[l], b + l * kNextProduct);
        }
      }
    }
    wgmma_commit();
  }
  __device__ void finish() {
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) keep_in_place(sums[i]);
  }
};

// The small products of a step first, so that of the six roundings towards zero that it has only
// the last two are of a full-sized sum.
template <class T>
struct WarpgroupProduct<T, Precision::kFp32> {
  static constexpr bool kQueues = false;
  MmaSums<T> sums;

  __device__ void begin() { clear<T>(sums); }
  __device__ void start(const PixelOperand<T> (&pixels)[T::kFragmentsM], std::uint64_t high) {
    const std::uint64_t low = high + T::kPartBytes / 16;
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) keep_in_place(step_sums_[i]);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) {
      wgmma_tf32<false>(step_sums_[i], pixels[i].low[0], high);
      wgmma_tf32<true>(step_sums_[i], pixels[i].low[1], high + kNextProduct);
      wgmma_tf32<true>(step_sums_[i], pixels[i].high[0], low);
      wgmma_tf32<true>(step_sums_[i], pixels[i].high[1], low + kNextProduct);
      wgmma_tf32<true>(step_sums_[i], pixels[i].high[0], high);
      wgmma_tf32<true>(step_sums_[i], pixels[i].high[1], high + kNextProduct);
    }
    wgmma_commit();
  }
  __device__ void finish() {
#pragma unroll
    for (int i = 0; i < T::kFragmentsM; ++i) {
      keep_in_place(step_sums_[i]);
#pragma unroll
      for (int j = 0; j < T::kFragmentsN; ++j) {
#pragma unroll
        for (int l = 0; l < 4; ++l) sums[i][j][l] += step_sums_[i][j][l];
      }
    }
  }

 private:
  MmaSums<T> step_sums_;
};

}  // namespace convnet
