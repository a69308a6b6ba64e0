// The update rule of the paper, section 5, for all parameters at once:
//   v = momentum v - weight_decay decay_mult lr lr_mult w - lr lr_mult g;   w = w + v
//
// Reads 12 bytes and writes 8 per parameter: limited by memory. The tensors are cut into chunks,
// and the chunks of all of them are shared out together, so that one huge tensor (fc6 holds 38 of
// the 61 million parameters of the paper's net) does not keep a single thread busy.
#include "sgd.h"

#include <vector>

#include "parallel.h"
#include "simd.h"

namespace convnet {
namespace {

CONVNET_INLINE void update_values(std::int64_t count, float momentum, float decay, float rate,
                                  const float* grad, float* velocity, float* w) {
  CONVNET_SIMD
  for (std::int64_t i = 0; i < count; ++i) {
    const float v = momentum * velocity[i] - decay * w[i] - rate * grad[i];
    velocity[i] = v;
    w[i] += v;
  }
}

}  // namespace

void update_chunk(std::int64_t count, const UpdateFactors& by, const float* grad, float* velocity,
                  float* w) {
  vectorized<update_values>(count, by.momentum, by.decay, by.rate, grad, velocity, w);
}

void sgd_update(const SgdTensor* tensors, int tensor_count, float lr, float momentum,
                float weight_decay, const StepState* state, Stream) {
  // first_chunk[t]: the number of the first chunk of tensor t.
  std::vector<std::int64_t> first_chunk(static_cast<std::size_t>(tensor_count) + 1, 0);
  for (int t = 0; t < tensor_count; ++t) {
    first_chunk[t + 1] = first_chunk[t] + ceil_div(tensors[t].count, kChunk);
  }
  parallel_for(first_chunk.back(), [&](std::int64_t chunk) {
    const auto after = std::upper_bound(first_chunk.begin(), first_chunk.end(), chunk);
    const auto index = static_cast<std::size_t>(after - first_chunk.begin()) - 1;
    const SgdTensor& tensor = tensors[index];
    const std::int64_t begin = (chunk - first_chunk[index]) * kChunk;
    UpdateFactors by{};
    const SgdRule rule{lr, momentum, weight_decay, tensor.lr_mult, tensor.decay_mult, state};
    if (!update_factors(rule, &by)) return;
    update_chunk(std::min(kChunk, tensor.count - begin), by, tensor.grad + begin,
                 tensor.velocity + begin, tensor.w + begin);
  });
}

}  // namespace convnet
