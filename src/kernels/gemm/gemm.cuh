// The launchers of the family: fprop, dgrad and wgrad of a plan, whatever its main loop.
#pragma once

#include "epilogue.cuh"
#include "plan.cuh"

namespace convnet {

// The filters of fprop and dgrad as the plan's main loop reads them: w, or plan.prepared_bytes() at
// the beginning of the workspace, of which the rest is left. In filters.cu.
const void* prepare_filters(OpName op, const GemmPlan& plan, const float* w, Workspace* workspace,
                            Stream stream);

// simt and mma. `rule`: dropout of y, for dense layers; else null. In fprop.cu, dgrad.cu, wgrad.cu.
template <class T>
void gemm_fprop(OpName op, const GemmPlan& plan, const T* x, const float* filters,
                const Epilogue<T>& epilogue, const DropoutRule* rule, T* y, Workspace workspace,
                Stream stream);
template <class T>
void gemm_dgrad(OpName op, const GemmPlan& plan, const T* dy, const float* w,
                const Epilogue<T>& epilogue, T* dx, Workspace workspace, Stream stream);
template <class T>
void gemm_wgrad(OpName op, const GemmPlan& plan, const T* x, const T* dy, float* dw, float* db,
                Workspace workspace, Stream stream);

// wgmma: fprop and dgrad of prepared filters, where `image` is x or dy and `out` y or dx, in
// wgmma_conv.cu; and wgrad, in wgmma_wgrad.cu.
template <class T>
void wgmma_conv(OpName op, const GemmPlan& plan, const T* image, const void* filters,
                const Epilogue<T>& epilogue, T* out, Stream stream);
template <class T>
void wgmma_wgrad(OpName op, const GemmPlan& plan, const T* x, const T* dy, float* dw, float* db,
                 Workspace workspace, Stream stream);

// conv_fprop() of ops.h and its like, with the name that errors begin with: dense layers are
// convolutions too (dense.cu). In conv.cu.
template <class T>
void conv_fprop_as(OpName op, ConvShape shape, Precision precision, const T* x, const float* w,
                   const float* b, bool relu, T* y, Workspace workspace, Stream stream,
                   const DropoutRule* rule = nullptr);
template <class T>
void conv_dgrad_as(OpName op, ConvShape shape, Precision precision, const T* dy, const float* w,
                   const T* relu_mask, T* dx, Workspace workspace, Stream stream);
template <class T>
void conv_wgrad_as(OpName op, ConvShape shape, Precision precision, const T* x, const T* dy,
                   float* dw, float* db, Workspace workspace, Stream stream);

// A dense layer as the convolution that it is. In dense.cu.
ConvShape as_convolution(const DenseShape& dense);

}  // namespace convnet
