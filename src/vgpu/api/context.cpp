#include "vgpu/api/context.h"

#include <utility>
#include <vector>

#include "vgpu/api/device.h"
#include "vgpu/settings.h"

unsigned CUctx_st::reachable() const {
  unsigned bits = 1u << device;
  for (const int peer : peers) bits |= 1u << peer;
  return bits;
}

namespace vgpu {

namespace {

thread_local std::vector<Context*> stack;

}  // namespace

Context* primary_context(int device) {
  static Context* const contexts = [] {
    auto* const made = new Context[kMaxDevices];
    for (int i = 0; i < kMaxDevices; ++i) made[i].device = i;
    return made;
  }();
  return &contexts[device];
}

Context* current_context() { return stack.empty() ? nullptr : stack.back(); }

void set_current_context(Context* context) {
  if (!stack.empty()) stack.pop_back();
  if (context) stack.push_back(context);
}

void push_context(Context* context) { stack.push_back(context); }

Context* pop_context() {
  require(!stack.empty(), CUDA_ERROR_INVALID_CONTEXT);
  Context* const top = stack.back();
  stack.pop_back();
  return top;
}

Context& require_context() {
  Context* const context = current_context();
  require(context != nullptr, CUDA_ERROR_INVALID_CONTEXT);
  throw_error(*context);
  return *context;
}

void throw_error(Context& context) {
  static const bool sticky = env("VGPU_STICKY", 1) != 0;
  if (context.error == CUDA_SUCCESS) return;
  fail(sticky ? context.error : std::exchange(context.error, CUDA_SUCCESS));
}

}  // namespace vgpu
