// The scratch memory of dense_wgrad and dense_wgrad_sgd, for dense_workspace().
#pragma once

#include "ops.h"

namespace convnet {

std::int64_t dense_wgrad_workspace(const DenseShape& shape, Math math);

}  // namespace convnet
