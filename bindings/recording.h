// Recordings: the operations of a training step as a list of calls that runs again without Python.
//
// While a Recording is active on a thread, every operation that is called there runs as always and
// is also noted, with its shapes and raw pointers. run() calls them again, in the same order, on
// the same memory; what differs from step to step they read from memory (StepState). A recording
// keeps the arrays of its calls alive.
//
// How it is noted: module.cpp calls the operations of the contract by their names. Inside its
// namespace these are not the functions but the objects below, which call and note them. An
// operation that is missing in the list at the end is found out: see Recording::missing().
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gil.h"
#include "ops.h"

namespace convnet {

namespace py = pybind11;

class Recording {
 public:
  ~Recording() {
    if (active() == this) active() = nullptr;
  }

  // The recording that is active on this thread, or null.
  static Recording*& active() {
    static thread_local Recording* recording = nullptr;
    return recording;
  }

  void begin() {
    if (active() != nullptr) throw std::runtime_error("Recording: another one is active");
    active() = this;
  }

  void end() {
    if (active() != this) throw std::runtime_error("Recording: it is not active");
    active() = nullptr;
    expect("");
  }

  // Of an operation, as its arguments are read: what it is called, and its arrays.
  void expect(const char* op) {
    if (!expected_.empty()) missing_ = expected_;
    expected_ = op;
  }
  void keep(py::handle array) { arrays_.push_back(py::reinterpret_borrow<py::object>(array)); }

  // Of an operation, as it runs.
  void note(std::function<void()> call) {
    names_.push_back(expected_);
    expected_.clear();
    calls_.push_back(Call{current_device(), std::move(call)});
  }

  void run() const {
    GilRelease release;
    const int before = current_device();
    for (const Call& call : calls_) {
      if (call.device != current_device()) set_current_device(call.device);
      call.run();
    }
    if (before != current_device()) set_current_device(before);
  }

  const std::vector<std::string>& names() const { return names_; }

  // An operation that was called past the objects below, or failed; without it the list is not the
  // step.
  const std::string& missing() const { return missing_; }

 private:
  struct Call {
    int device;
    std::function<void()> run;
  };

  std::vector<Call> calls_;
  std::vector<std::string> names_;
  std::vector<py::object> arrays_;
  std::string expected_, missing_;
};

// An operation that is noted: called like the function itself.
template <auto function>
struct Recorded;

template <class... Parameters, void (*function)(Parameters...)>
struct Recorded<function> {
  void operator()(Parameters... arguments) const {
    function(arguments...);
    if (Recording* recording = Recording::active()) {
      recording->note([=] { function(arguments...); });
    }
  }
};

// The same for the one operation that reads a table on the host, which is copied.
struct RecordedUpdate {
  void operator()(const SgdTensor* tensors, int tensor_count, float lr, float momentum,
                  float weight_decay, bool own_rates, StepState* state, Stream stream) const {
    convnet::sgd_update(tensors, tensor_count, lr, momentum, weight_decay, own_rates, state,
                        stream);
    if (Recording* recording = Recording::active()) {
      const std::vector<SgdTensor> table(tensors, tensors + tensor_count);
      recording->note([=] {
        convnet::sgd_update(table.data(), tensor_count, lr, momentum, weight_decay, own_rates,
                            state, stream);
      });
    }
  }
};

namespace {

#define CONVNET_RECORDED(op) \
  constexpr Recorded<&convnet::op> op {}
CONVNET_RECORDED(conv_fprop);
CONVNET_RECORDED(conv_dgrad);
CONVNET_RECORDED(conv_wgrad);
CONVNET_RECORDED(local_fprop);
CONVNET_RECORDED(local_dgrad);
CONVNET_RECORDED(local_wgrad);
CONVNET_RECORDED(dense_fprop);
CONVNET_RECORDED(dense_fprop_dropout);
CONVNET_RECORDED(dense_dgrad);
CONVNET_RECORDED(dense_wgrad);
CONVNET_RECORDED(dense_wgrad_sgd);
CONVNET_RECORDED(maxpool_fprop);
CONVNET_RECORDED(maxpool_bprop);
CONVNET_RECORDED(avgpool_fprop);
CONVNET_RECORDED(avgpool_bprop);
CONVNET_RECORDED(lrn_fprop);
CONVNET_RECORDED(lrn_bprop);
CONVNET_RECORDED(lrn_maxpool_fprop);
CONVNET_RECORDED(lrn_maxpool_bprop);
CONVNET_RECORDED(activation_fprop);
CONVNET_RECORDED(activation_bprop);
CONVNET_RECORDED(accumulate);
CONVNET_RECORDED(dropout);
CONVNET_RECORDED(softmax_fprop);
CONVNET_RECORDED(softmax_xent);
CONVNET_RECORDED(augment);
CONVNET_RECORDED(peer_copy);
CONVNET_RECORDED(peer_add);
CONVNET_RECORDED(peer_stamp);
CONVNET_RECORDED(peer_check);
CONVNET_RECORDED(peer_halt);
#undef CONVNET_RECORDED
constexpr RecordedUpdate sgd_update;

}  // namespace
}  // namespace convnet
