// Work that was enqueued and has not run: tasks that wait for one another, and who runs next.
//
// A task is one kernel, copy, fill or host function, or nothing (an event, a join). It may run once
// the tasks it waits for are done. Nothing else orders tasks, as on a GPU: whoever forgot an event
// between two streams sees it. When they run is up to VGPU_STREAMS:
//   late          what nobody waits for does not run; of what may run, the task that was enqueued
//                 last goes first
//   shuffle:SEED  of what may run, any; some of it before somebody waits
//   eager         at once, in the order of the calls
// Every order is the same from run to run, for the same calls.
#pragma once
#include <cuda.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace vgpu {

using Context = CUctx_st;
using Work = std::function<void()>;  // throws Failure

struct Task {
  Context* context = nullptr;
  bool blocking = false;  // of a stream that the legacy stream waits for
  std::string label;
  Work work;                                 // may be empty
  std::vector<std::shared_ptr<Task>> after;  // what it waits for; empty once done
  enum { kWaiting, kRunning, kDone } state = kWaiting;
  std::uint64_t number = 0;  // in the order of the calls
  unsigned seen = 0;         // by the scheduler's walk

  bool done() const { return state == kDone; }
};
using TaskRef = std::shared_ptr<Task>;

// All calls hold api_mutex(), which is let go while a task's work runs.
class Scheduler {
 public:
  Scheduler();

  void submit(const TaskRef& task);
  void finish(const TaskRef& task);  // runs it and all it waits for
  void finish_all(const Context* context, bool blocking_only = false);
  bool advance(const TaskRef& task);  // runs one task on the way to it; whether it is done now
  std::vector<TaskRef> pending(const Context* context, bool blocking_only) const;

 private:
  enum class Order { late, shuffle, eager };

  void collect_ready(const TaskRef& task, std::vector<TaskRef>* ready);
  void run_one_of(const std::vector<TaskRef>& ready);
  void run(const TaskRef& task);
  void wait_for_other_thread();

  Order order_ = Order::late;
  std::mt19937 random_;
  std::vector<TaskRef> pending_;  // in the order of the calls
  std::uint64_t submitted_ = 0;
  unsigned walk_ = 0;
  bool busy_ = false;  // a task runs, in thread runner_
  std::thread::id runner_;
  std::condition_variable idle_;
};

Scheduler& scheduler();

}  // namespace vgpu
