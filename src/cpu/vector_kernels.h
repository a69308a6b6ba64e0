// The kernels of vectors.h over vectors of CONVNET_LANES floats, in a namespace CONVNET_TARGET.
// Included several times, by vector_kernels.cpp, between pragmas that set the instruction set; so
// nothing else may be included here, and whatever is called must be here too.

namespace convnet {
namespace {
namespace CONVNET_TARGET {

#include "vector_lanes.h"
#include "vector_lrn.h"
#include "vector_maxpool.h"

template <class T>
constexpr VectorKernels<T> kKernels{kLanes, lrn_fprop<T>, lrn_bprop<T>, maxpool_fprop<T>,
                                    maxpool_bprop<T>};

}  // namespace CONVNET_TARGET
}  // namespace
}  // namespace convnet
