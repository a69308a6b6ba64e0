// The update of neighbouring parameters, for sgd.cpp and for dense_wgrad.cpp, which share its bits.
#pragma once

#include <cstdint>

#include "ops.h"

namespace convnet {

// The factors of v, g and w for one tensor.
struct UpdateFactors {
  float momentum, rate, decay;
};

// Those that a rule comes to now; false where the step was halted and nothing may change.
inline bool update_factors(const SgdRule& rule, UpdateFactors* by) {
  const StepState* state = rule.state;
  if (state != nullptr && state->halt != 0) return false;
  by->momentum = state != nullptr ? state->momentum : rule.momentum;
  by->rate = (state != nullptr ? state->lr : rule.lr) * rule.lr_mult;
  const float weight_decay = state != nullptr ? state->weight_decay : rule.weight_decay;
  by->decay = by->rate * weight_decay * rule.decay_mult;
  return true;
}

// v = momentum v - decay w - rate g;  w = w + v. In sgd.cpp.
void update_chunk(std::int64_t count, const UpdateFactors& by, const float* grad, float* velocity,
                  float* w);

}  // namespace convnet
