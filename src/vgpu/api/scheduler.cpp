#include "vgpu/api/scheduler.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "vgpu/api/call.h"
#include "vgpu/api/context.h"
#include "vgpu/settings.h"

namespace vgpu {

namespace {

constexpr std::size_t kQueueDepth = 1024;  // more than that: the oldest has to run first

// Lets go of the API's lock for a moment.
struct Unlocked {
  Unlocked() { api_mutex().unlock(); }
  ~Unlocked() { api_mutex().lock(); }
};

}  // namespace

Scheduler& scheduler() {
  static auto* const the = new Scheduler;
  return *the;
}

Scheduler::Scheduler() {
  const std::string order = env_text("VGPU_STREAMS", "late");
  const std::string shuffle = "shuffle:";
  if (order == "eager") {
    order_ = Order::eager;
  } else if (order.compare(0, shuffle.size(), shuffle) == 0) {
    order_ = Order::shuffle;
    random_.seed(static_cast<unsigned>(std::atoi(order.c_str() + shuffle.size())));
  } else if (order != "late") {
    std::fprintf(stderr, "vgpu: VGPU_STREAMS=%s: expected late, eager or shuffle:SEED\n",
                 order.c_str());
    std::exit(2);
  }
}

void Scheduler::submit(const TaskRef& task) {
  task->number = ++submitted_;
  pending_.push_back(task);
  if (order_ == Order::eager) {
    finish(task);
  } else if (pending_.size() > kQueueDepth) {
    finish(pending_.front());
  } else if (order_ == Order::shuffle && random_() % 2) {
    std::vector<TaskRef> ready;
    ++walk_;
    collect_ready(pending_[random_() % pending_.size()], &ready);
    if (!busy_) run_one_of(ready);
  }
}

void Scheduler::finish(const TaskRef& task) {
  while (!advance(task)) {
  }
}

void Scheduler::finish_all(const Context* context, bool blocking_only) {
  // The last first: of independent streams the younger one's work goes ahead.
  std::vector<TaskRef> tasks = pending(context, blocking_only);
  if (order_ == Order::late) std::reverse(tasks.begin(), tasks.end());
  for (const TaskRef& task : tasks) finish(task);
}

bool Scheduler::advance(const TaskRef& task) {
  if (task->done()) return true;
  if (busy_) {
    wait_for_other_thread();
    return task->done();
  }
  std::vector<TaskRef> ready;
  ++walk_;
  collect_ready(task, &ready);
  run_one_of(ready);
  return task->done();
}

std::vector<TaskRef> Scheduler::pending(const Context* context, bool blocking_only) const {
  std::vector<TaskRef> found;
  for (const TaskRef& task : pending_)
    if (task->context == context && (task->blocking || !blocking_only)) found.push_back(task);
  return found;
}

// The tasks that may run now, of `task` and what it waits for.
void Scheduler::collect_ready(const TaskRef& task, std::vector<TaskRef>* ready) {
  std::vector<TaskRef> stack = {task};
  while (!stack.empty()) {
    const TaskRef at = std::move(stack.back());
    stack.pop_back();
    if (at->seen == walk_) continue;
    at->seen = walk_;
    std::erase_if(at->after, [](const TaskRef& each) { return each->done(); });
    if (at->after.empty()) ready->push_back(at);
    for (const TaskRef& each : at->after) stack.push_back(each);
  }
}

void Scheduler::run_one_of(const std::vector<TaskRef>& ready) {
  if (order_ == Order::shuffle) {
    run(ready[random_() % ready.size()]);
  } else {
    run(*std::max_element(ready.begin(), ready.end(), [](const TaskRef& a, const TaskRef& b) {
      return a->number < b->number;
    }));
  }
}

void Scheduler::run(const TaskRef& task) {
  const bool skip = task->context->error != CUDA_SUCCESS;  // a broken context runs nothing more
  if (task->work && !skip) {
    busy_ = true;
    runner_ = std::this_thread::get_id();
    task->state = Task::kRunning;
    try {
      const Unlocked unlocked;
      task->work();
    } catch (const Failure& failure) {
      if (!failure.text.empty()) note_message(failure.text);
      task->context->error = failure.code;
      task->context->error_text = failure.text;
    }
    busy_ = false;
    idle_.notify_all();
  }
  task->state = Task::kDone;
  task->after.clear();
  task->work = nullptr;
  std::erase(pending_, task);
}

void Scheduler::wait_for_other_thread() {
  require(runner_ != std::this_thread::get_id(), CUDA_ERROR_NOT_PERMITTED,
          "a host function waits for the device that waits for it");
  std::unique_lock lock(api_mutex(), std::adopt_lock);
  idle_.wait(lock, [this] { return !busy_; });
  lock.release();
}

}  // namespace vgpu
