// The update rule of sgd.cu for one value, for every kernel that applies it.
#pragma once

#include "device.h"
#include "ops.h"

namespace convnet {

// The factors of v, g and w in one tensor.
struct UpdateFactors {
  float momentum, rate, decay;
};

// Those that a rule comes to now; false where the step was halted and nothing may change.
__device__ inline bool update_factors(const SgdRule& rule, UpdateFactors* by) {
  const StepState* state = rule.state;
  if (state != nullptr && state->halt != 0) return false;
  const float weight_decay = state != nullptr ? state->weight_decay : rule.weight_decay;
  by->momentum = state != nullptr ? state->momentum : rule.momentum;
  by->rate = (state != nullptr ? state->lr : rule.lr) * rule.lr_mult;
  by->decay = by->rate * weight_decay * rule.decay_mult;
  return true;
}

// velocity = momentum velocity - decay w - rate grad;  w = w + velocity. Which products are fused
// into sums is said here and not left to the compiler: all kernels must give the same bits.
__device__ inline void update_value(const UpdateFactors& by, float grad, float* velocity,
                                    float* w) {
  const float kept = fmaf(by.momentum, *velocity, -(by.decay * *w));
  *velocity = fmaf(-by.rate, grad, kept);
  *w += *velocity;
}

}  // namespace convnet
