// What tells whether a block arrived: its number, and the sum of its words modulo 2^32 (ops.h).
//   peer_stamp at the source writes both where the target looks; peer_check at the target counts
//   and adds up for itself, and raises the halt word where they differ.
//
// Tensors:  src, a [rows, cols] block in rows `src_stride` floats apart, read as words; count [1]
//           and halt [1] read and written; stamp [2] written by the source, read by the target;
//           workspace: a sum for each block of the first kernel.
// Mapping:  sum_kernel: at most kSums blocks share the elements out, neighbouring threads taking
//           neighbouring ones. The last kernel is one block, which adds up the sums; thread 0 then
//           stamps or checks. Integers: the sum is the same in any order.
// Devices:  each kernel runs where the block is. peer_stamp stores the stamp into the target's
//           memory, peer_halt loads a word of it; the launchers open the way. The order between
//           devices is that of events, which are the caller's.
// Limits:   memory: 4 bytes an element, read once.
#include "device/launch.h"
#include "divider.cuh"
#include "ops.h"
#include "peer.cuh"
#include "warp.cuh"

namespace convnet {
namespace {

constexpr int kSums = 128;
constexpr int kWarps = kBlockThreads / kWarpLanes;

struct Block {
  unsigned count;  // elements
  std::int64_t stride;
  Divider by_cols;
};

__global__ void __launch_bounds__(kBlockThreads)
    peer_sum_kernel(Block block, const unsigned* src, unsigned* sums) {
  __shared__ __align__(16) unsigned partial[kWarps];
  unsigned sum = 0;
  for (unsigned i = global_thread(); i < block.count; i += gridDim.x * kBlockThreads) {
    unsigned row = i;
    const unsigned col = static_cast<unsigned>(block.by_cols.split(&row));
    sum += src[row * block.stride + col];
  }
  sum = block_reduce<kWarps>(sum, partial, Add());
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// The sum of all blocks' sums, in every thread of a block.
__device__ unsigned total(const unsigned* sums, unsigned count) {
  __shared__ __align__(16) unsigned partial[kWarps];
  return block_reduce<kWarps>(threadIdx.x < count ? sums[threadIdx.x] : 0u, partial, Add());
}

__global__ void __launch_bounds__(kBlockThreads)
    peer_stamp_kernel(const unsigned* sums, unsigned sum_count, unsigned* count, unsigned* stamp) {
  const unsigned sum = total(sums, sum_count);
  if (threadIdx.x != 0) return;
  count[0] += 1;
  stamp[0] = count[0];
  stamp[1] = sum;
}

__global__ void __launch_bounds__(kBlockThreads)
    peer_check_kernel(const unsigned* sums, unsigned sum_count, unsigned* count,
                      const unsigned* stamp, unsigned code, unsigned* halt) {
  const unsigned sum = total(sums, sum_count);
  if (threadIdx.x != 0) return;
  count[0] += 1;
  const bool arrived = stamp[0] == count[0] && stamp[1] == sum;
  if (!arrived && halt[0] == 0) halt[0] = code;
}

__global__ void peer_halt_kernel(const unsigned* other, unsigned* halt) {
  if (halt[0] == 0) halt[0] = other[0];
}

// Adds up the words of a block; returns how many sums there are.
unsigned add_up(OpName op, const PeerShape& shape, const float* src, unsigned* sums,
                Stream stream) {
  Block block;
  block.count = static_cast<unsigned>(shape.rows * shape.cols);
  block.stride = shape.src_stride;
  block.by_cols = Divider(static_cast<unsigned>(shape.cols));
  const dim3 all = blocks_for(block.count);
  const dim3 grid(all.x < kSums ? all.x : kSums);
  launch(op, peer_sum_kernel, grid, dim3(kBlockThreads), 0, stream, block,
         reinterpret_cast<const unsigned*>(src), sums);
  return grid.x;
}

}  // namespace

std::int64_t peer_stamp_workspace() { return kSums * sizeof(unsigned); }

void peer_stamp(const PeerShape& shape, const float* src, std::uint32_t* count,
                std::uint32_t* stamp, Workspace workspace, Stream stream) {
  open_way("peer_stamp", shape.dst_device);
  auto* sums = static_cast<unsigned*>(workspace.data);
  const unsigned sum_count = add_up("peer_stamp", shape, src, sums, stream);
  launch("peer_stamp", peer_stamp_kernel, dim3(1), dim3(kBlockThreads), 0, stream, sums, sum_count,
         count, stamp);
}

void peer_check(const PeerShape& shape, const float* src, std::uint32_t* count,
                const std::uint32_t* stamp, std::uint32_t code, std::uint32_t* halt,
                Workspace workspace, Stream stream) {
  auto* sums = static_cast<unsigned*>(workspace.data);
  const unsigned sum_count = add_up("peer_check", shape, src, sums, stream);
  launch("peer_check", peer_check_kernel, dim3(1), dim3(kBlockThreads), 0, stream, sums, sum_count,
         count, stamp, code, halt);
}

void peer_halt(const std::uint32_t* other, int other_device, std::uint32_t* halt, Stream stream) {
  open_way("peer_halt", other_device);
  launch("peer_halt", peer_halt_kernel, dim3(1), dim3(1), 0, stream, other, halt);
}

}  // namespace convnet
