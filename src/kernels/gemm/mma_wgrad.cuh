// What kernels for gradients of weights on tensor cores share: mma_wgrad.cu and mma_wgrad_sgd.cu.
#pragma once

#include "mma.cuh"

namespace convnet {

// As MatrixColumns of wgrad.cuh: M[m, i] = matrix[i, first + m], or zero.
template <int kRows, int kThreads, bool kVector>
class MmaMatrixColumns : public CopyAlongRows<kRows, kThreads, kVector> {
  using Base = CopyAlongRows<kRows, kThreads, kVector>;

 public:
  __device__ MmaMatrixColumns(const float* matrix, unsigned pitch, unsigned length, unsigned first,
                              unsigned end)
      : matrix_(matrix), pitch_(pitch), length_(length), first_(first), end_(end) {}

  __device__ void copy(float* stage, unsigned first_i) {
    const unsigned i = first_i + Base::k();
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned column = first_ + Base::row(load);
      Base::copy(stage, load, matrix_ + (i * pitch_ + column), i < length_ && column < end_);
    }
  }

 private:
  const float* matrix_;
  unsigned pitch_, length_, first_, end_;
};

// Adds up the rows of A as they pass through shared memory: a thread for each filter of the tile.
template <class T>
struct MmaRowSums {
  static_assert(T::kM <= T::kThreads, "a thread for each row");
  bool wanted;
  float sum = 0.0f;

  __device__ void operator()(const float* stage) {
    if (!wanted) return;
#pragma unroll
    for (int k = 0; k < kMmaK; ++k) sum += stage[MmaAlongRows<T::kM>::offset(threadIdx.x, k)];
  }
};

}  // namespace convnet
