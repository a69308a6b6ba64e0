// The driver API: streams, events, capture and graphs.
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

#include "vgpu/api/call.h"
#include "vgpu/api/stream.h"

using namespace vgpu;

namespace {

// Whether all is done, as the API says it.
CUresult ready(CUresult result, bool done) {
  return result == CUDA_SUCCESS && !done ? CUDA_ERROR_NOT_READY : result;
}

}  // namespace

extern "C" {

// --- streams
CUresult cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int priority) {
  return call(__func__, [&] { *stream = create_stream(flags, priority); });
}
CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  return cuStreamCreateWithPriority(stream, flags, 0);
}
CUresult cuStreamDestroy_v2(CUstream stream) {
  return call(__func__, [&] { destroy_stream(stream); });
}
CUresult cuStreamSynchronize(CUstream stream) {
  return call(__func__, [&] {
    require_context();
    synchronize(stream);
  });
}
CUresult cuStreamQuery(CUstream stream) {
  bool done = true;
  const CUresult result = call(__func__, [&] {
    require_context();
    done = query(stream);
  });
  return ready(result, done);
}
CUresult cuStreamGetFlags(CUstream stream, unsigned* flags) {
  return call(__func__, [&] { *flags = stream_of(stream).flags; });
}
CUresult cuStreamGetPriority(CUstream stream, int* priority) {
  return call(__func__, [&] { *priority = stream_of(stream).priority; });
}
CUresult cuStreamGetCtx(CUstream stream, CUcontext* context) {
  return call(__func__, [&] { *context = stream_of(stream).context; });
}
CUresult cuStreamGetDevice(CUstream stream, CUdevice* device) {
  return call(__func__, [&] { *device = stream_of(stream).context->device; });
}
CUresult cuStreamGetId(CUstream stream, unsigned long long* id) {
  return call(__func__, [&] { *id = reinterpret_cast<unsigned long long>(&stream_of(stream)); });
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  return call(__func__, [&] { wait(stream, *event); });
}
CUresult cuStreamAddCallback(CUstream stream, CUstreamCallback function, void* data, unsigned) {
  return call(__func__, [&] {
    require_not_captured(stream_of(stream), "adding a callback");
    enqueue(stream, CU_GRAPH_NODE_TYPE_HOST, "callback",
            [=] { function(stream, CUDA_SUCCESS, data); });
  });
}
CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void* data) {
  return call(__func__, [&] {
    enqueue(stream, CU_GRAPH_NODE_TYPE_HOST, "host function", [=] { function(data); });
  });
}

// --- events
CUresult cuEventCreate(CUevent* event, unsigned flags) {
  return call(__func__, [&] { *event = create_event(flags); });
}
CUresult cuEventDestroy_v2(CUevent event) {
  return call(__func__, [&] { destroy_event(event); });
}
CUresult cuEventRecord(CUevent event, CUstream stream) {
  return call(__func__, [&] { record(*event, stream); });
}
CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned) {
  return cuEventRecord(event, stream);
}
CUresult cuEventQuery(CUevent event) {
  bool done = true;
  const CUresult result = call(__func__, [&] { done = query(*event); });
  return ready(result, done);
}
CUresult cuEventSynchronize(CUevent event) {
  return call(__func__, [&] { synchronize(*event); });
}
CUresult cuEventElapsedTime_v2(float* ms, CUevent from, CUevent to) {
  return call(__func__, [&] { *ms = elapsed_ms(*from, *to); });
}
CUresult cuEventElapsedTime(float* ms, CUevent from, CUevent to) {
  return cuEventElapsedTime_v2(ms, from, to);
}

// --- capture
CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  return call(__func__, [&] { *mode = exchange_capture_mode(*mode); });
}
CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
  return call(__func__, [&] { begin_capture(stream_of(stream), mode); });
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  return call(__func__, [&] {
    *graph = nullptr;
    *graph = end_capture(stream_of(stream));
  });
}
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
  return call(__func__, [&] { *status = capture_status(stream_of(stream)); });
}
CUresult cuStreamGetCaptureInfo_v2(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t* id,
                                   CUgraph* graph, const CUgraphNode** front, size_t* count) {
  return call(__func__, [&] {
    const CapturePoint& point = stream_of(stream).capture;
    *status = capture_status(stream_of(stream));
    if (id) *id = point.session ? point.session->id : 0;
    if (graph) *graph = point.session ? point.session->graph.get() : nullptr;
    if (front) *front = point.front.data();
    if (count) *count = point.front.size();
  });
}
CUresult cuStreamGetCaptureInfo_v3(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t* id,
                                   CUgraph* graph, const CUgraphNode** front,
                                   const CUgraphEdgeData** edges, size_t* count) {
  if (edges) *edges = nullptr;
  return cuStreamGetCaptureInfo_v2(stream, status, id, graph, front, count);
}

// --- graphs
CUresult cuGraphCreate(CUgraph* graph, unsigned) {
  return call(__func__, [&] { *graph = new Graph; });
}
CUresult cuGraphDestroy(CUgraph graph) {
  return call(__func__, [&] { delete graph; });
}
CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode* nodes, size_t* count) {
  return call(__func__, [&] {
    const std::size_t size = graph->nodes.size();
    for (std::size_t i = 0; nodes && i < *count && i < size; ++i) nodes[i] = graph->nodes[i].get();
    *count = size;
  });
}
CUresult cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType* type) {
  return call(__func__, [&] { *type = node->type; });
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec* made, CUgraph graph, unsigned long long) {
  return call(__func__, [&] { *made = instantiate(*graph); });
}
CUresult cuGraphInstantiateWithParams(CUgraphExec* made, CUgraph graph,
                                      CUDA_GRAPH_INSTANTIATE_PARAMS* params) {
  params->result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
  return cuGraphInstantiateWithFlags(made, graph, 0);
}
CUresult cuGraphInstantiate_v2(CUgraphExec* made, CUgraph graph, CUgraphNode*, char*, size_t) {
  return cuGraphInstantiateWithFlags(made, graph, 0);
}
CUresult cuGraphExecDestroy(CUgraphExec graph) {
  return call(__func__, [&] { delete graph; });
}
CUresult cuGraphUpload(CUgraphExec, CUstream) {
  return call(__func__, [] {});
}
CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream) {
  return call(__func__, [&] { launch_graph(*graph, stream); });
}

}  // extern "C"
