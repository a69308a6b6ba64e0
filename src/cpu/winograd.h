// Winograd's minimal filtering: convolutions of stride 1 with 3x3 and 5x5 filters by fewer
// multiplications (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015).
//
// conv.cpp asks `winograd_suits` and otherwise takes oneDNN's direct convolution.
#pragma once

#include "onednn.h"

namespace convnet {

// What oneDNN's direct convolution costs, in multiplications.
double direct_cost(const ConvShape& shape);

// Whether this convolution has a Winograd form here and it costs less than `otherwise`, by a model.
// The environment variable CONVNET_WINOGRAD overrules the model: "off", or "always" where there is
// a form at all; other values but "auto" are refused.
bool winograd_suits(const ConvShape& shape, Pass pass, double otherwise);

std::string winograd_name(const ConvShape& shape, Pass pass);        // of one that suits
std::int64_t winograd_workspace(const ConvShape& shape, Pass pass);  // of dgrad and wgrad

// What fprop takes of memory, in bytes: prepared filters, and the workspaces to make them and to
// multiply them.
struct FpropBytes {
  std::int64_t filters, prepare, multiply;
  std::int64_t together() const { return Scratch::padded(filters) + std::max(prepare, multiply); }
};
FpropBytes winograd_fprop_bytes(const ConvShape& shape);

// As conv_prepare, conv_fprop_prepared, conv_dgrad and conv_wgrad in ops.h.
void winograd_prepare(const ConvShape& shape, const float* w, Workspace prepared,
                      Workspace workspace);
template <class T>
void winograd_fprop(const ConvShape& shape, const T* x, Workspace prepared, const float* b,
                    bool relu, T* y, Workspace workspace);
template <class T>
void winograd_dgrad(const ConvShape& shape, const T* dy, const float* w, const T* relu_mask, T* dx,
                    Workspace workspace);
template <class T>
void winograd_wgrad(const ConvShape& shape, const T* x, const T* dy, float* dw, float* db,
                    Workspace workspace);

}  // namespace convnet
