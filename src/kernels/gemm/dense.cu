// Fully connected layers: convolutions of one pixel with filters of one tap, over N images.
//
//   fprop  y[n,k]  = relu(b[k] + sum_c x[n,c] w[k,c])
//   dgrad  dx[n,c] = sum_k dy[n,k] w[k,c],  0 where relu_mask[n,c] <= 0
//   wgrad  dw[k,c] = sum_n dy[n,k] x[n,c],  db[k] = sum_n dy[n,k]
//
// x [N,C] is [N,1,1,C], w [K,C] is [K,1,1,C], y [N,K] is [N,1,1,K], all as they lie: the kernels
// are those of fprop.cu, dgrad.cu and wgrad.cu, and everything said there holds.
// (dense_wgrad_sgd.cu updates w on the way.) With a batch of 128 the forward products have few
// tiles and a long sum, so they are split along it.
// Cost: 2 N C K flops, and w read (in wgrad written) once: with N = 128, 64 flops a byte of w,
// which is more than these kernels need to be limited by arithmetic.
#include "gemm.cuh"

namespace convnet {

ConvShape as_convolution(const DenseShape& dense) {
  ConvShape shape{};
  shape.n = dense.n;
  shape.c = dense.c;
  shape.k = dense.k;
  shape.h = shape.w = shape.p = shape.q = 1;
  shape.r = shape.s = 1;
  shape.groups = 1;
  shape.stride_h = shape.stride_w = 1;
  return shape;
}

std::int64_t dense_workspace(const DenseShape& shape, Pass pass, Precision precision) {
  return conv_workspace(as_convolution(shape), pass, precision);
}

std::string dense_kernel(const DenseShape& shape, Pass pass, Precision precision) {
  return conv_kernel(as_convolution(shape), pass, precision);
}

template <class T>
void dense_fprop(const DenseShape& shape, Precision precision, const T* x, const float* w,
                 const float* b, bool relu, T* y, Workspace workspace, Stream stream) {
  conv_fprop_as("dense_fprop", as_convolution(shape), precision, x, w, b, relu, y, workspace,
                stream);
}

template <class T>
void dense_fprop_dropout(const DenseShape& shape, Precision precision, const T* x, const float* w,
                         const float* b, bool relu, const DropoutRule& rule, T* y,
                         Workspace workspace, Stream stream) {
  conv_fprop_as("dense_fprop_dropout", as_convolution(shape), precision, x, w, b, relu, y,
                workspace, stream, &rule);
}

template <class T>
void dense_dgrad(const DenseShape& shape, Precision precision, const T* dy, const float* w,
                 const T* relu_mask, T* dx, Workspace workspace, Stream stream) {
  conv_dgrad_as("dense_dgrad", as_convolution(shape), precision, dy, w, relu_mask, dx, workspace,
                stream);
}

template <class T>
void dense_wgrad(const DenseShape& shape, Precision precision, const T* x, const T* dy, float* dw,
                 float* db, Workspace workspace, Stream stream) {
  conv_wgrad_as("dense_wgrad", as_convolution(shape), precision, x, dy, dw, db, workspace, stream);
}

#define CONVNET_DENSE_OF(T)                                                                     \
  template void dense_fprop(const DenseShape&, Precision, const T*, const float*, const float*, \
                            bool, T*, Workspace, Stream);                                       \
  template void dense_fprop_dropout(const DenseShape&, Precision, const T*, const float*,       \
                                    const float*, bool, const DropoutRule&, T*, Workspace,      \
                                    Stream);                                                    \
  template void dense_dgrad(const DenseShape&, Precision, const T*, const float*, const T*, T*, \
                            Workspace, Stream);                                                 \
  template void dense_wgrad(const DenseShape&, Precision, const T*, const T*, float*, float*,   \
                            Workspace, Stream)
CONVNET_DENSE_OF(float);
CONVNET_DENSE_OF(Bfloat16);
#undef CONVNET_DENSE_OF

}  // namespace convnet
