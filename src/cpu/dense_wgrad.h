// The scratch memory of dense_wgrad and dense_wgrad_sgd, for dense_workspace(), and what they
// compute in, for dense_kernel().
#pragma once

#include "ops.h"

namespace convnet {

std::int64_t dense_wgrad_workspace(const DenseShape& shape, Math math);
Math dense_wgrad_math(const DenseShape& shape, Math math);

}  // namespace convnet
