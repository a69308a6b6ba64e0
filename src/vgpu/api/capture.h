// Stream capture: work becomes nodes of a graph instead of tasks.
#pragma once
#include <cuda.h>

#include <memory>
#include <string>
#include <vector>

#include "vgpu/api/graph.h"

struct CUstream_st;
struct CUevent_st;

namespace vgpu {

using Stream = CUstream_st;
using Event = CUevent_st;

// One capture: the stream that cuStreamBeginCapture named, and those that its events drew in.
struct CaptureSession {
  std::unique_ptr<CUgraph_st> graph;
  Stream* origin = nullptr;
  std::vector<Stream*> streams;  // the origin among them
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  unsigned long long id = 0;
  bool invalid = false;
  bool ended = false;
};

// Where a stream or an event stands in a capture.
struct CapturePoint {
  std::shared_ptr<CaptureSession> session;  // null: in none
  std::vector<CUgraphNode> front;           // what comes next comes after these
};

// Fails where a call that a capture forbids is made: one that waits for the device or changes its
// memory. Which captures matter is up to their mode and to this thread's.
void require_no_capture(const char* what);
// Fails where the legacy stream is used while a stream that it waits for is captured.
void require_no_implicit_capture(Context& context);
CUstreamCaptureMode exchange_capture_mode(CUstreamCaptureMode mode);

void begin_capture(Stream& stream, CUstreamCaptureMode mode);
CUgraph end_capture(Stream& stream);
CUstreamCaptureStatus capture_status(const Stream& stream);
// Fails where the stream is captured, and the capture with it: the call was not permitted.
void require_not_captured(Stream& stream, const char* what);
void forget_captured_stream(Stream& stream);  // before it is destroyed

void capture_node(Stream& stream, CUgraphNodeType type, std::string label, Work work);
void capture_record(Event& event, Stream& stream);
void capture_wait(Stream& stream, Event& event);

}  // namespace vgpu
