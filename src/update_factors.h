// What the update rule (SgdRule in ops.h) comes to for one tensor, on the host and in kernels.
#pragma once

#include "ops.h"

namespace convnet {

// The factors of v, g and w in one tensor.
struct UpdateFactors {
  float momentum, rate, decay;
};

// Those that a rule comes to now; false where nothing may change.
CONVNET_HOST_DEVICE inline bool update_factors(const SgdRule& rule, UpdateFactors* by) {
  float lr = rule.lr, momentum = rule.momentum, weight_decay = rule.weight_decay;
  if (rule.state != nullptr) {
    if (!may_update(*rule.state)) return false;
    lr = rule.state->lr;
    momentum = rule.state->momentum;
    weight_decay = rule.state->weight_decay;
  }
  if (rule.rates != nullptr) {
    const float* const row = rule.rates + 2 * std::size_t{rule.number - 1};
    lr = row[0];
    momentum = row[1];
  }
  by->momentum = momentum;
  by->rate = lr * rule.lr_mult;
  by->decay = by->rate * weight_decay * rule.decay_mult;
  return true;
}

}  // namespace convnet
