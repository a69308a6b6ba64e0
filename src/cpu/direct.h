// Convolutions by oneDNN's direct algorithm; conv.cpp chooses between this and Winograd's.
//
// Where oneDNN has no product of bfloat16 arrays, as on most processors, some images at a time are
// widened, which stay in the caches, and convolved in float32.
#pragma once

#include "onednn.h"

namespace convnet {

// Whether it computes in `precision`, lower than float32.
bool direct_is_reduced(const ConvShape& shape, Pass pass, Precision precision);

// Of filters that were prepared, or of KRSC.
std::int64_t direct_workspace(const ConvShape& shape, Pass pass, Precision precision,
                              bool prepared);

// As conv_prepared_bytes and conv_prepare in ops.h.
std::int64_t direct_prepared_bytes(const ConvShape& shape, Precision precision);
void direct_prepare(const ConvShape& shape, Precision precision, const float* w,
                    Workspace prepared);

// As the passes in ops.h, without the mask of a ReLU.
template <class T>
void direct_fprop(const ConvShape& shape, Precision precision, const T* x, const void* filters,
                  bool prepared, const float* b, bool relu, T* y, Workspace workspace);
template <class T>
void direct_dgrad(const ConvShape& shape, Precision precision, const T* dy, const float* w, T* dx,
                  Workspace workspace);
template <class T>
void direct_wgrad(const ConvShape& shape, Precision precision, const T* x, const T* dy, float* dw,
                  float* db, Workspace workspace);

}  // namespace convnet
