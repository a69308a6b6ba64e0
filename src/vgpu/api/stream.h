// Streams and events.
#pragma once
#include <cuda.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "vgpu/api/capture.h"
#include "vgpu/api/context.h"
#include "vgpu/vgpu.h"

struct CUstream_st {
  vgpu::Context* context = nullptr;
  unsigned flags = 0;
  int priority = 0;
  bool legacy = false;
  vgpu::TaskRef last;  // what it did last
  // The last kernel, and its task: null if it was captured.
  vgpu::TaskRef kernel_task;
  std::shared_ptr<vgpu::Launch> kernel;
  vgpu::CapturePoint capture;

  bool blocking() const { return !legacy && !(flags & CU_STREAM_NON_BLOCKING); }
};

struct CUevent_st {
  struct Mark {
    std::chrono::steady_clock::time_point when;
  };
  vgpu::Context* context = nullptr;
  unsigned flags = 0;
  vgpu::TaskRef task;           // of the last record; null before the first
  std::shared_ptr<Mark> mark;   // set when that task runs
  vgpu::CapturePoint captured;  // where the last record was in a stream under capture
};

namespace vgpu {

Stream& stream_of(CUstream handle);  // also of null, CU_STREAM_LEGACY and CU_STREAM_PER_THREAD

Stream* create_stream(unsigned flags, int priority);
void destroy_stream(CUstream handle);  // its work goes on
void synchronize(CUstream handle);
void synchronize(Context& context);
bool query(CUstream handle);  // whether all is done; if not, a little more is now

// Adds work behind what the stream has: as a task, or as a node of the graph that it is captured
// into. Returns the task, null where it became a node.
TaskRef enqueue(CUstream handle, CUgraphNodeType type, const std::string& label, Work work);
// A task of the stream's context that waits for the stream's work. The stream does not wait for it,
// unless it is made its last (append).
TaskRef task_behind(Stream& stream, const std::string& label, Work work);
void append(Stream& stream, const TaskRef& task);

Event* create_event(unsigned flags);
void destroy_event(Event* event);
void record(Event& event, CUstream handle);
void wait(CUstream handle, Event& event);
bool query(Event& event);
void synchronize(Event& event);
float elapsed_ms(const Event& from, const Event& to);

}  // namespace vgpu
