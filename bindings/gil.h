// Running without Python's global lock.
#pragma once

#include <pthread.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <atomic>

namespace convnet {

// Gives the lock up for as long as it lives. When the interpreter ends, a thread that asks for the
// lock again is ended by pthread_exit, which unwinds the stack; py::gil_scoped_release, whose
// destructor may not throw, turns that into std::terminate. Here such a thread waits for the end
// of the process, as Python itself does from 3.14 on.
class GilRelease {
 public:
  GilRelease() : state_(PyEval_SaveThread()) { ++running(); }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

  ~GilRelease() {
    --running();
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) pause();
    }
  }

  // For Py_AtExit: after it the libraries that operations use are taken down. No operation begins
  // any more then, and those that run still get the time to end; one that hangs does not get more.
  static void wait_for_all() {
    for (int ms = 0; running() > 0 && ms < 10000; ++ms) usleep(1000);
  }

 private:
  static std::atomic<int>& running() {
    static std::atomic<int> count(0);
    // A forked process has only the thread that forked, which is in no operation.
    [[maybe_unused]] static const int known = pthread_atfork(nullptr, nullptr, [] { count = 0; });
    return count;
  }

  PyThreadState* state_;
};

}  // namespace convnet
