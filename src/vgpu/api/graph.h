// Graphs as capture makes them, and their launches.
#pragma once
#include <cuda.h>

#include <memory>
#include <string>
#include <vector>

#include "vgpu/api/scheduler.h"
#include "vgpu/vgpu.h"

struct CUgraphNode_st {
  CUgraphNodeType type;
  vgpu::Context* context;
  std::string label;
  vgpu::Work work;
  std::vector<CUgraphNode> after;
  std::shared_ptr<vgpu::Launch> kernel = nullptr;  // of a kernel
};

struct CUgraph_st {
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;  // none before what it comes after
};

struct CUgraphExec_st {
  struct Step {
    vgpu::Context* context;
    std::string label;
    std::shared_ptr<const vgpu::Work> work;
    std::vector<std::size_t> after;
  };
  std::vector<Step> steps;
  vgpu::TaskRef last;  // launches of one executable graph run one after another
};

namespace vgpu {

using Graph = CUgraph_st;
using GraphExec = CUgraphExec_st;

CUgraphNode add_node(Graph& graph, CUgraphNodeType type, Context* context, std::string label,
                     Work work, std::vector<CUgraphNode> after);
GraphExec* instantiate(const Graph& graph);
void launch_graph(GraphExec& graph, CUstream handle);

}  // namespace vgpu
