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

std::string winograd_name(const ConvShape& shape, Pass pass);  // of one that suits
std::int64_t winograd_workspace(const ConvShape& shape, Pass pass);

// As conv_fprop, conv_dgrad and conv_wgrad in ops.h.
void winograd_fprop(const ConvShape& shape, const float* x, const float* w, const float* b,
                    bool relu, float* y, Workspace workspace);
void winograd_dgrad(const ConvShape& shape, const float* dy, const float* w, const float* relu_mask,
                    float* dx, Workspace workspace);
void winograd_wgrad(const ConvShape& shape, const float* x, const float* dy, float* dw, float* db,
                    Workspace workspace);

}  // namespace convnet
