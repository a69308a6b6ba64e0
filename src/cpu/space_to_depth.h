// Strided convolutions as convolutions of stride 1: blocks of d x d pixels, d being the stride,
// become single pixels of d * d * C channels. The paper's first layer, 11 x 11 x 3 at stride 4, is
// then one of 3 x 3 x 48 at stride 1, with zeros where the filter was not 12 wide, and Winograd's
// algorithm serves it; the gradient of w of bfloat16 arrays AMX, which lays 16 channels out as fast as 3.
//
// conv.cpp asks `space_to_depth_suits`; the functions are as those of winograd.h, `precision` being kBf16 for
// products of tiles.
#pragma once

#include <optional>

#include "winograd.h"

namespace convnet {

// Whether this convolution is cheaper so than directly, which costs `direct` multiplications.
bool space_to_depth_suits(const ConvShape& shape, Pass pass, double direct);

// As amx_cost.
std::optional<double> space_to_depth_amx_cost(const ConvShape& shape, Pass pass);

std::int64_t space_to_depth_workspace(const ConvShape& shape, Pass pass,
                                      Precision precision);  // of dgrad and wgrad
FpropBytes space_to_depth_fprop_bytes(const ConvShape& shape);

void space_to_depth_prepare(const ConvShape& shape, const float* w, Workspace prepared,
                            Workspace workspace);
template <class T>
void space_to_depth_fprop(const ConvShape& shape, const T* x, Workspace prepared, const float* b,
                          bool relu, T* y, Workspace workspace);
template <class T>
void space_to_depth_dgrad(const ConvShape& shape, const T* dy, const float* w, const T* relu_mask,
                          T* dx, Workspace workspace);
template <class T>
void space_to_depth_wgrad(const ConvShape& shape, Precision precision, const T* x, const T* dy,
                          float* dw, float* db, Workspace workspace);

}  // namespace convnet
