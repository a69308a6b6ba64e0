// What dense_workspace() and dense_kernel() say of dense_wgrad and dense_wgrad_sgd.
#pragma once

#include <string>

#include "ops.h"

namespace convnet {

std::int64_t dense_wgrad_workspace(const DenseShape& shape, Precision precision);
std::string dense_wgrad_kernel(const DenseShape& shape, Precision precision);

}  // namespace convnet
