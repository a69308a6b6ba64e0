// Recordings: the operations of a training step as a list of calls that runs again without Python.
//
// While a Recording is active on a thread, every operation that is called there (Call::run in
// call.h) runs as always and is also noted, with its shapes and raw pointers. run() calls them
// again, in the same order, on the same memory; what differs from step to step they read from
// memory (StepState). A recording keeps the arrays of its calls alive.
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
  }

  void keep(py::handle array) { arrays_.push_back(py::reinterpret_borrow<py::object>(array)); }

  void note(const char* op, std::function<void()> run) {
    names_.emplace_back(op);
    calls_.push_back({current_device(), std::move(run)});
  }

  void run() const {
    GilRelease release;
    const int before = current_device();
    for (const auto& [device, run_call] : calls_) {
      if (device != current_device()) set_current_device(device);
      run_call();
    }
    if (before != current_device()) set_current_device(before);
  }

  const std::vector<std::string>& names() const { return names_; }

 private:
  std::vector<std::pair<int, std::function<void()>>> calls_;  // each with its device
  std::vector<std::string> names_;
  std::vector<py::object> arrays_;
};

}  // namespace convnet
