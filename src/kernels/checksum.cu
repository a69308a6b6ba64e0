// What tells whether a block arrived: its number, and the sum of its words modulo 2^32 (ops.h).
//   peer_checksum at the source writes both where the target looks; peer_check at the target counts
//   and adds up for itself, and raises the aborted word where they differ.
//
// Tensors:  src, a [rows, cols] block in rows `src_stride` elements apart, float32 or bfloat16, read as words
//           of as many bits; count [1]
//           and aborted [1] read and written; checksum [2] written by the source, read by the
//           target; workspace: a sum for each block of the first kernel.
// Mapping:  sum_kernel: at most kSums blocks share the elements out, neighbouring threads taking
//           neighbouring ones. The last kernel is one block, which adds up the sums; thread 0 then
//           writes or compares the checksum. Integers: the sum is the same in any order.
// Devices:  each kernel runs where the block is. peer_checksum stores the checksum into memory of
//           the target, peer_abort loads a word of it; the launchers open the way. The order
//           between devices is that of events, which are the caller's.
// Limits:   memory: 4 bytes an element (bfloat16: 2), read once.
#include <type_traits>

#include "device/launch.h"
#include "fast_divmod.cuh"
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
  FastDivmod by_cols;
};

template <class Word>
__global__ void __launch_bounds__(kBlockThreads)
    peer_sum_kernel(Block block, const Word* src, unsigned* sums) {
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
    peer_checksum_kernel(const unsigned* sums, unsigned sum_count, unsigned* count,
                         unsigned* checksum) {
  const unsigned sum = total(sums, sum_count);
  if (threadIdx.x != 0) return;
  count[0] += 1;
  checksum[0] = count[0];
  checksum[1] = sum;
}

__global__ void __launch_bounds__(kBlockThreads)
    peer_check_kernel(const unsigned* sums, unsigned sum_count, unsigned* count,
                      const unsigned* checksum, unsigned code, unsigned* aborted) {
  const unsigned sum = total(sums, sum_count);
  if (threadIdx.x != 0) return;
  count[0] += 1;
  const bool arrived = checksum[0] == count[0] && checksum[1] == sum;
  if (!arrived && aborted[0] == 0) aborted[0] = code;
}

__global__ void peer_abort_kernel(const unsigned* other, unsigned* aborted) {
  if (aborted[0] == 0) aborted[0] = other[0];
}

// Adds up the words of a block; returns how many sums there are.
template <class T>
unsigned add_up(OpName op, const PeerShape& shape, const T* src, unsigned* sums, Stream stream) {
  using Word = std::conditional_t<sizeof(T) == 2, std::uint16_t, std::uint32_t>;
  Block block;
  block.count = static_cast<unsigned>(shape.rows * shape.cols);
  block.stride = shape.src_stride;
  block.by_cols = FastDivmod(static_cast<unsigned>(shape.cols));
  const dim3 all = blocks_for(block.count);
  const dim3 grid(all.x < kSums ? all.x : kSums);
  launch(op, peer_sum_kernel<Word>, grid, dim3(kBlockThreads), 0, stream, block,
         reinterpret_cast<const Word*>(src), sums);
  return grid.x;
}

}  // namespace

std::int64_t peer_checksum_workspace() { return kSums * sizeof(unsigned); }

template <class T>
void peer_checksum(const PeerShape& shape, const T* src, std::uint32_t* count,
                   std::uint32_t* checksum, Workspace workspace, Stream stream) {
  open_way("peer_checksum", shape.dst_device);
  auto* sums = static_cast<unsigned*>(workspace.data);
  const unsigned sum_count = add_up("peer_checksum", shape, src, sums, stream);
  launch("peer_checksum", peer_checksum_kernel, dim3(1), dim3(kBlockThreads), 0, stream, sums,
         sum_count, count, checksum);
}

template <class T>
void peer_check(const PeerShape& shape, const T* src, std::uint32_t* count,
                const std::uint32_t* checksum, std::uint32_t code, std::uint32_t* aborted,
                Workspace workspace, Stream stream) {
  auto* sums = static_cast<unsigned*>(workspace.data);
  const unsigned sum_count = add_up("peer_check", shape, src, sums, stream);
  launch("peer_check", peer_check_kernel, dim3(1), dim3(kBlockThreads), 0, stream, sums, sum_count,
         count, checksum, code, aborted);
}

CONVNET_FOR_BOTH_TYPES(peer_checksum);
CONVNET_FOR_BOTH_TYPES(peer_check);

void peer_abort(const std::uint32_t* other, int other_device, std::uint32_t* aborted,
                Stream stream) {
  open_way("peer_abort", other_device);
  launch("peer_abort", peer_abort_kernel, dim3(1), dim3(1), 0, stream, other, aborted);
}

}  // namespace convnet
