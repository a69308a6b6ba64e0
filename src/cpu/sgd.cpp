// The update rule of the paper, section 5, for all parameters at once:
//   v = momentum v - weight_decay decay_mult lr lr_mult w - lr lr_mult g;   w = w + v
//
// Reads 12 bytes and writes 8 per parameter: limited by memory. The tensors are cut into chunks,
// and the chunks of all of them are shared out together, so that one huge tensor (fc6 holds 38 of
// the 61 million parameters of the paper's net) does not keep a single thread busy.
#include "sgd.h"

#include <cfloat>
#include <cmath>
#include <vector>

#include "elementary.h"
#include "parallel.h"
#include "simd.h"

namespace convnet {
namespace {

// `one` where the bits of the mask are set, else `other`: no branch, and so no masked stores.
CONVNET_INLINE float choose(std::uint32_t mask, float one, float other) {
  return float_from_bits((float_bits(one) & mask) | (float_bits(other) & ~mask));
}

// What is not finite anywhere shows in the new w.
CONVNET_INLINE bool update_values(std::int64_t count, float momentum, float decay, float rate,
                                  const float* grad, float* velocity, float* w) {
  std::uint32_t kept = 0;
#pragma omp simd reduction(| : kept)
  for (std::int64_t i = 0; i < count; ++i) {
    const float v = momentum * velocity[i] - decay * w[i] - rate * grad[i], sum = w[i] + v;
    const std::uint32_t keep = std::fabs(sum) <= FLT_MAX ? 0u : ~0u;
    velocity[i] = choose(keep, velocity[i], v);
    w[i] = choose(keep, w[i], sum);
    kept |= keep;
  }
  return kept == 0;
}

}  // namespace

bool update_chunk(std::int64_t count, const UpdateFactors& by, const float* grad, float* velocity,
                  float* w) {
  return vectorized<update_values>(count, by.momentum, by.decay, by.rate, grad, velocity, w);
}

void sgd_update(const SgdTensor* tensors, int tensor_count, float lr, float momentum,
                float weight_decay, const float* rates, StepState* state, Stream) {
  // first_chunk[t]: the number of the first chunk of tensor t.
  std::vector<std::int64_t> first_chunk(static_cast<std::size_t>(tensor_count) + 1, 0);
  for (int t = 0; t < tensor_count; ++t) {
    first_chunk[t + 1] = first_chunk[t] + ceil_div(tensors[t].count, kChunk);
  }
  Diverged diverged;
  parallel_for(first_chunk.back(), [&](std::int64_t chunk) {
    const auto after = std::upper_bound(first_chunk.begin(), first_chunk.end(), chunk);
    const auto index = static_cast<std::size_t>(after - first_chunk.begin()) - 1;
    const SgdTensor& tensor = tensors[index];
    const std::int64_t begin = (chunk - first_chunk[index]) * kChunk;
    UpdateFactors by{};
    const SgdRule rule{
        lr, momentum, weight_decay, tensor.lr_mult, tensor.decay_mult, tensor.number, rates, state};
    if (!update_factors(rule, &by)) return;
    const std::int64_t size = std::min(kChunk, tensor.count - begin);
    if (!update_chunk(size, by, tensor.grad + begin, tensor.velocity + begin, tensor.w + begin)) {
      diverged.note(tensor.number);
    }
  });
  diverged.write_to(state);
}

}  // namespace convnet
