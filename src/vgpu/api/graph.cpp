#include "vgpu/api/graph.h"

#include <map>
#include <utility>

#include "vgpu/api/stream.h"

namespace vgpu {

CUgraphNode add_node(Graph& graph, CUgraphNodeType type, Context* context, std::string label,
                     Work work, std::vector<CUgraphNode> after) {
  graph.nodes.push_back(std::unique_ptr<CUgraphNode_st>(new CUgraphNode_st{
      type, context, std::move(label), std::move(work), std::move(after), nullptr}));
  return graph.nodes.back().get();
}

GraphExec* instantiate(const Graph& graph) {
  auto* const made = new GraphExec;
  std::map<CUgraphNode, std::size_t> index;
  for (const auto& node : graph.nodes) {
    GraphExec::Step step{node->context, node->label, std::make_shared<const Work>(node->work), {}};
    for (CUgraphNode each : node->after) step.after.push_back(index.at(each));
    index[node.get()] = made->steps.size();
    made->steps.push_back(std::move(step));
  }
  return made;
}

// A task for each node, and one that joins them, behind the stream's work and the graph's previous
// launch.
void launch_graph(GraphExec& graph, CUstream handle) {
  Context& context = require_context();
  Stream& stream = stream_of(handle);
  require_not_captured(stream, "launching a graph");
  if (stream.legacy) require_no_implicit_capture(context);
  const TaskRef start = task_behind(stream, "graph", nullptr);
  if (graph.last) start->after.push_back(graph.last);
  const TaskRef join = task_behind(stream, "end of a graph", nullptr);
  join->after.push_back(start);
  std::vector<TaskRef> tasks;
  for (const GraphExec::Step& step : graph.steps) {
    auto task = std::make_shared<Task>();
    task->context = step.context;
    task->blocking = start->blocking;
    task->label = step.label;
    if (*step.work) task->work = [work = step.work] { (*work)(); };
    task->after.push_back(start);
    for (const std::size_t each : step.after) task->after.push_back(tasks[each]);
    join->after.push_back(task);
    tasks.push_back(std::move(task));
  }
  graph.last = join;
  scheduler().submit(start);
  for (const TaskRef& task : tasks) scheduler().submit(task);
  append(stream, join);
  throw_error(context);
}

}  // namespace vgpu
