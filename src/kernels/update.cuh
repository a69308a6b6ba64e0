// The update rule of sgd.cu for one value, for every kernel that applies it.
#pragma once

#include "ops.h"

namespace convnet {

// The factors of v, g and w in one tensor.
struct UpdateFactors {
  float momentum, rate, decay;
};

// Those that a rule comes to now; false where nothing may change.
__device__ inline bool update_factors(const SgdRule& rule, UpdateFactors* by) {
  const StepState* state = rule.state;
  if (state != nullptr && !may_update(*state)) return false;
  const bool own = state == nullptr || rule.own_rates;
  const float weight_decay = own ? rule.weight_decay : state->weight_decay;
  by->momentum = own ? rule.momentum : state->momentum;
  by->rate = (own ? rule.lr : state->lr) * rule.lr_mult;
  by->decay = by->rate * weight_decay * rule.decay_mult;
  return true;
}

// velocity = momentum velocity - decay w - rate grad;  w = w + velocity. Which products are fused
// into sums is said here and not left to the compiler: all kernels must give the same bits. Where
// the new w is not finite, which it is not if anything in it was not, both stay. Returns whether
// it is finite.
__device__ inline bool update_value(const UpdateFactors& by, float grad, float* velocity,
                                    float* w) {
  const float kept = fmaf(by.momentum, *velocity, -(by.decay * *w));
  const float new_velocity = fmaf(-by.rate, grad, kept), new_w = *w + new_velocity;
  const bool finite = fabsf(new_w) <= 3.40282347e38f;
  if (finite) *velocity = new_velocity;
  if (finite) *w = new_w;
  return finite;
}

// Notes that an update by this rule would not have been finite. In whatever order the threads of
// any number of blocks do so, the words come out the same.
__device__ inline void note_diverged(const SgdRule& rule) {
  if (rule.state == nullptr) return;
  atomicMax(&rule.state->diverged, rule.number);
  atomicExch(&rule.state->diverged_step, rule.state->step + 1);
}

}  // namespace convnet
