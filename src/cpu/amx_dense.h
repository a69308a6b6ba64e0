// Gradients of the weights of fully connected layers, of bfloat16 arrays, by products of tiles (tiles.h).
#pragma once

#include <functional>

#include "onednn.h"

namespace convnet {

// Some rows and columns of dw [K, C].
struct GradientBlock {
  int row, rows, column, columns;
  const float* data;
  std::int64_t pitch;  // from row to row

  const float* at(int i) const { return data + i * pitch; }
};

// Whether there is AMX for it.
bool amx_dense_wgrad_suits(const DenseShape& shape, Precision precision);
std::int64_t amx_dense_wgrad_workspace(const DenseShape& shape);

// Calls done(block) for every block of dw = dy^T x, from any thread; it lies in that thread's caches then.
void amx_dense_wgrad(const char* op, const DenseShape& shape, const Bfloat16* x, const Bfloat16* dy,
                     Workspace workspace, const std::function<void(const GradientBlock&)>& done);

}  // namespace convnet
