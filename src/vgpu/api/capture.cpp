#include "vgpu/api/capture.h"

#include <algorithm>
#include <set>
#include <utility>

#include "vgpu/api/stream.h"

namespace vgpu {

namespace {

int global_captures = 0;            // under way, begun in the global mode by any thread
thread_local int own_captures = 0;  // begun by this thread, not in the relaxed mode
thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

void join(const std::shared_ptr<CaptureSession>& session, Stream& stream) {
  stream.capture = {session, {}};
  session->streams.push_back(&stream);
  if (stream.blocking()) ++stream.context->blocking_captures;
}

void leave(Stream& stream) {
  stream.capture = {};
  if (stream.blocking()) --stream.context->blocking_captures;
}

// Whether all nodes lead to the given ones: else a stream was forked and never joined.
bool all_lead_to(const Graph& graph, std::vector<CUgraphNode> front) {
  std::set<CUgraphNode> reached;
  while (!front.empty()) {
    CUgraphNode const node = front.back();
    front.pop_back();
    if (!reached.insert(node).second) continue;
    front.insert(front.end(), node->after.begin(), node->after.end());
  }
  return reached.size() == graph.nodes.size();
}

}  // namespace

void require_no_capture(const char* what) {
  const bool forbidden =
      thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL
          ? own_captures > 0 || global_captures > 0
          : thread_mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && own_captures > 0;
  if (forbidden)
    fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
         std::string(what) + " is not permitted while a stream is being captured");
}

void require_no_implicit_capture(Context& context) {
  require(context.blocking_captures == 0, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
          "the legacy stream is used while a stream that it waits for is being captured");
}

CUstreamCaptureMode exchange_capture_mode(CUstreamCaptureMode mode) {
  return std::exchange(thread_mode, mode);
}

void begin_capture(Stream& stream, CUstreamCaptureMode mode) {
  require_context();
  require(!stream.legacy, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
          "the legacy stream cannot be captured");
  require(!stream.capture.session, CUDA_ERROR_ILLEGAL_STATE, "the stream is captured already");
  static unsigned long long ids = 0;
  auto session = std::make_shared<CaptureSession>();
  session->graph = std::make_unique<Graph>();
  session->origin = &stream;
  session->mode = mode;
  session->id = ++ids;
  join(session, stream);
  global_captures += mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
  own_captures += mode != CU_STREAM_CAPTURE_MODE_RELAXED;
}

CUgraph end_capture(Stream& stream) {
  const std::shared_ptr<CaptureSession> session = stream.capture.session;
  require(session != nullptr, CUDA_ERROR_ILLEGAL_STATE, "the stream is not captured");
  require(session->origin == &stream, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED,
          "the capture began in another stream");
  global_captures -= session->mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
  own_captures -= session->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
  const bool joined = all_lead_to(*session->graph, stream.capture.front);
  for (Stream* const each : session->streams) leave(*each);
  session->ended = true;
  require(!session->invalid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  require(joined, CUDA_ERROR_STREAM_CAPTURE_UNJOINED,
          "a stream that joined the capture was not waited for before its end");
  return session->graph.release();
}

CUstreamCaptureStatus capture_status(const Stream& stream) {
  if (stream.legacy) require_no_implicit_capture(*stream.context);
  if (!stream.capture.session) return CU_STREAM_CAPTURE_STATUS_NONE;
  return stream.capture.session->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                         : CU_STREAM_CAPTURE_STATUS_ACTIVE;
}

void require_not_captured(Stream& stream, const char* what) {
  if (!stream.capture.session) return;
  stream.capture.session->invalid = true;
  fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
       std::string(what) + " is not permitted while the stream is being captured");
}

void forget_captured_stream(Stream& stream) {
  const std::shared_ptr<CaptureSession> session = stream.capture.session;
  if (!session) return;
  session->invalid = true;
  std::erase(session->streams, &stream);
  leave(stream);
}

void capture_node(Stream& stream, CUgraphNodeType type, std::string label, Work work) {
  CaptureSession& session = *stream.capture.session;
  require(!session.invalid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  CUgraphNode const node = add_node(*session.graph, type, stream.context, std::move(label),
                                    std::move(work), std::move(stream.capture.front));
  stream.capture.front = {node};
}

void capture_record(Event& event, Stream& stream) {
  event.captured = stream.capture;
  event.task = nullptr;
}

void capture_wait(Stream& stream, Event& event) {
  const std::shared_ptr<CaptureSession>& session = event.captured.session;
  if (!session) {
    stream.capture.session->invalid = true;
    fail(CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
         "a stream that is being captured waits for an event recorded outside the capture");
  }
  require(!session->ended, CUDA_ERROR_CAPTURED_EVENT,
          "an event is waited for that was recorded during a capture which has ended");
  if (!stream.capture.session) join(session, stream);
  if (stream.capture.session != session) {
    session->invalid = stream.capture.session->invalid = true;
    fail(CUDA_ERROR_STREAM_CAPTURE_MERGE, "an event of one capture is waited for in another");
  }
  std::vector<CUgraphNode>& front = stream.capture.front;
  for (CUgraphNode node : event.captured.front)
    if (std::find(front.begin(), front.end(), node) == front.end()) front.push_back(node);
}

}  // namespace vgpu
