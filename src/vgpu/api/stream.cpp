#include "vgpu/api/stream.h"

#include "vgpu/api/device.h"

namespace vgpu {

namespace {

bool is_legacy(CUstream handle) { return handle == nullptr || handle == CU_STREAM_LEGACY; }

Stream& built_in_stream(bool legacy, int device) {
  static auto* const streams = new Stream[2 * kMaxDevices];
  Stream& stream = streams[2 * device + legacy];
  stream.context = primary_context(device);
  stream.legacy = legacy;
  return stream;
}

}  // namespace

Stream& stream_of(CUstream handle) {
  if (!is_legacy(handle) && handle != CU_STREAM_PER_THREAD) return *handle;
  const Context* const context = current_context();
  return built_in_stream(is_legacy(handle), context ? context->device : 0);
}

Stream* create_stream(unsigned flags, int priority) {
  auto* const made = new Stream;
  made->context = &require_context();
  made->flags = flags;
  made->priority = priority;
  return made;
}

void destroy_stream(CUstream handle) {
  require(handle && !is_legacy(handle) && handle != CU_STREAM_PER_THREAD,
          CUDA_ERROR_INVALID_HANDLE);
  forget_captured_stream(*handle);
  delete handle;
}

void synchronize(CUstream handle) {
  Stream& stream = stream_of(handle);
  require_not_captured(stream, "synchronizing");
  if (stream.legacy) {
    require_no_implicit_capture(*stream.context);
    if (stream.context->legacy) scheduler().finish(stream.context->legacy);
    scheduler().finish_all(stream.context, true);
  } else if (stream.last) {
    scheduler().finish(stream.last);
  }
  throw_error(*stream.context);
}

void synchronize(Context& context) {
  require_no_capture("synchronizing a device");
  scheduler().finish_all(&context);
  throw_error(context);
}

bool query(CUstream handle) {
  Stream& stream = stream_of(handle);
  require_not_captured(stream, "querying a stream");
  bool done = true;
  if (stream.legacy) {
    require_no_implicit_capture(*stream.context);
    for (const TaskRef& task : scheduler().pending(stream.context, true))
      done = scheduler().advance(task) && done;
  } else if (stream.last) {
    done = scheduler().advance(stream.last);
  }
  throw_error(*stream.context);
  return done;
}

TaskRef task_behind(Stream& stream, const std::string& label, Work work) {
  Context& context = *stream.context;
  auto task = std::make_shared<Task>();
  task->context = &context;
  task->blocking = stream.legacy || stream.blocking();
  task->label = label;
  task->work = std::move(work);
  // The legacy stream waits for the blocking streams and they for it.
  if (stream.legacy) task->after = scheduler().pending(&context, true);
  if (stream.blocking() && context.legacy) task->after.push_back(context.legacy);
  if (stream.last) task->after.push_back(stream.last);
  return task;
}

void append(Stream& stream, const TaskRef& task) {
  stream.last = task;
  if (stream.legacy) stream.context->legacy = task;
  scheduler().submit(task);
}

TaskRef enqueue(CUstream handle, CUgraphNodeType type, const std::string& label, Work work) {
  Context& context = require_context();
  Stream& stream = stream_of(handle);
  if (stream.capture.session) {
    capture_node(stream, type, label, std::move(work));
    return nullptr;
  }
  if (stream.legacy) require_no_implicit_capture(context);
  const TaskRef task = task_behind(stream, label, std::move(work));
  append(stream, task);
  throw_error(context);
  return task;
}

Event* create_event(unsigned flags) {
  auto* const made = new Event;
  made->context = &require_context();
  made->flags = flags;
  return made;
}

void destroy_event(Event* event) { delete event; }

void record(Event& event, CUstream handle) {
  require_context();
  Stream& stream = stream_of(handle);
  require(stream.context == event.context, CUDA_ERROR_INVALID_HANDLE,
          "an event is recorded in a stream of another device");
  if (stream.capture.session) {
    capture_record(event, stream);
    return;
  }
  event.captured = {};
  event.mark = std::make_shared<Event::Mark>();
  event.task = enqueue(handle, CU_GRAPH_NODE_TYPE_EVENT_RECORD, "event",
                       [mark = event.mark] { mark->when = std::chrono::steady_clock::now(); });
}

void wait(CUstream handle, Event& event) {
  require_context();
  Stream& stream = stream_of(handle);
  if (event.captured.session || (stream.capture.session && event.task)) {
    capture_wait(stream, event);
    return;
  }
  if (!event.task || event.task->done()) return;
  if (stream.legacy) require_no_implicit_capture(*stream.context);
  const TaskRef task = task_behind(stream, "wait for an event", nullptr);
  task->after.push_back(event.task);
  append(stream, task);
}

bool query(Event& event) {
  require(!event.captured.session, CUDA_ERROR_CAPTURED_EVENT);
  const bool done = !event.task || scheduler().advance(event.task);
  throw_error(*event.context);
  return done;
}

void synchronize(Event& event) {
  require(!event.captured.session, CUDA_ERROR_CAPTURED_EVENT);
  if (event.task) scheduler().finish(event.task);
  throw_error(*event.context);
}

float elapsed_ms(const Event& from, const Event& to) {
  for (const Event* event : {&from, &to}) {
    require(event->task && !(event->flags & CU_EVENT_DISABLE_TIMING), CUDA_ERROR_INVALID_HANDLE);
    require(event->task->done(), CUDA_ERROR_NOT_READY);
  }
  return std::chrono::duration<float, std::milli>(to.mark->when - from.mark->when).count();
}

}  // namespace vgpu
