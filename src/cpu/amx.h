// Convolutions of bfloat16 arrays by products of tiles (tiles.h), which AMX does in an instruction.
//
// conv.cpp asks `amx_cost` and otherwise takes Winograd's algorithm or oneDNN's direct convolution.
#pragma once

#include <optional>

#include "onednn.h"
#include "winograd.h"

namespace convnet {

// What it costs, in multiplications of oneDNN's direct convolution in float32, by a model; nothing
// where it cannot be done here: arrays of float32, no AMX, or the gradient of a strided convolution's x.
std::optional<double> amx_cost(const ConvShape& shape, Pass pass);

// The products of tiles that a pass comes to, those of what fills tiles up included.
double amx_correlate_products(const ConvShape& shape, Pass pass);  // fprop and dgrad
double amx_wgrad_products(const ConvShape& shape);

FpropBytes amx_fprop_bytes(const ConvShape& shape);
std::int64_t amx_dgrad_workspace(const ConvShape& shape);
std::int64_t amx_wgrad_workspace(const ConvShape& shape);
std::int64_t amx_workspace(const ConvShape& shape, Pass pass);  // of dgrad or wgrad

// As conv_prepare, conv_fprop_prepared, conv_dgrad and conv_wgrad in ops.h.
void amx_prepare(const ConvShape& shape, const float* w, Workspace prepared);
void amx_fprop(const ConvShape& shape, const Bfloat16* x, Workspace prepared, const float* b,
               bool relu, Bfloat16* y, Workspace workspace);
void amx_dgrad(const ConvShape& shape, const Bfloat16* dy, const float* w,
               const Bfloat16* relu_mask, Bfloat16* dx, Workspace workspace);
void amx_wgrad(const ConvShape& shape, const Bfloat16* x, const Bfloat16* dy, float* dw, float* db,
               Workspace workspace);

}  // namespace convnet
