// The update of neighbouring parameters, for sgd.cpp and for dense_wgrad.cpp, which share its bits.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "update_factors.h"

namespace convnet {

// v = momentum v - decay w - rate g;  w = w + v; both stay where the new w is not finite. Returns
// whether all were. In sgd.cpp.
bool update_chunk(std::int64_t count, const UpdateFactors& by, const float* grad, float* velocity,
                  float* w);

// The greatest number of a tensor whose update was not finite, as threads find it, for the state.
class Diverged {
 public:
  void note(std::uint32_t number) {
    std::uint32_t most = number_;
    while (most < number && !number_.compare_exchange_weak(most, number)) {
    }
  }
  void write_to(StepState* state) const {
    if (state == nullptr || number_ == 0) return;
    state->diverged = std::max<std::uint32_t>(state->diverged, number_);
    state->diverged_step = state->step + 1;
  }

 private:
  std::atomic<std::uint32_t> number_{0};
};

}  // namespace convnet
