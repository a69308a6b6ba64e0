// What kernels for gradients of weights by FFMA share: conv_wgrad.cu and dense_wgrad_sgd.cu.
#pragma once

#include "simt.cuh"

namespace convnet {

// An operand M[m, i] = matrix[i, first + m], for a matrix of `length` rows that are `pitch` apart;
// zero for i >= length and for first + m >= end. So dy is read in every gradient of weights, with a
// pixel for each i, and x in that of a dense layer.
template <int kRows, int kThreads, bool kVector>
class MatrixColumns : public AlongRows<kRows, kThreads, kVector> {
  using Base = AlongRows<kRows, kThreads, kVector>;

 public:
  __device__ MatrixColumns(const float* matrix, unsigned pitch, unsigned length, unsigned first,
                           unsigned end)
      : matrix_(matrix), pitch_(pitch), length_(length), first_(first), end_(end) {}

  __device__ void fetch(unsigned first_i) {
    const unsigned i = first_i + Base::k();
#pragma unroll
    for (int load = 0; load < Base::kLoads; ++load) {
      const unsigned column = first_ + Base::row(load);
      read(this->values[load], matrix_, i * pitch_ + column, i < length_ && column < end_);
    }
  }

 private:
  const float* matrix_;
  unsigned pitch_, length_, first_, end_;
};

// Adds up the rows of A as they pass through shared memory: a thread for each filter of the tile.
template <class T>
struct RowSums {
  static_assert(T::kM <= T::kThreads, "a thread for each row");
  bool wanted;
  float sum = 0.0f;

  __device__ void operator()(const float (&tile_a)[kTileK][T::kPitchM]) {
    if (!wanted) return;
#pragma unroll
    for (int k = 0; k < kTileK; ++k) sum += tile_a[k][threadIdx.x];
  }
};

}  // namespace convnet
