// The update rule of sgd.cu for one value, for every kernel that applies it.
#pragma once

#include "update_factors.h"

namespace convnet {

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
