// Softmax, and the cross-entropy loss with its gradient and the rank of the label (ops.h).
//   softmax_j = e^(x_j - max) / sum_i e^(x_i - max)
//   loss = weight (log(sum_i e^(x_i - max)) - (x_label - max))
//   dx_j = scale weight (softmax_j - [j = label]);   weight = weights[label], or 1
//   rank = number of classes that are not surely behind the label
//
// Tensors:  logits [N, classes], labels [N] int32, weights [classes] (may be null) read; probs or
//           loss [N], dlogits [N, classes] (may be null) and rank [N] int32 written. logits, probs
//           and dlogits are float32 or bfloat16, what is between them float32.
// Mapping:  up to kNarrow classes, a warp takes a row, eight rows a block; more, a block of eight
//           warps takes a row. A thread takes every 32nd (256th) class. Maximum, sum and rank are
//           reduced by shuffles, and over the warps of a block through shared memory (64 bytes,
//           two barriers each).
// Edges:    any number of classes; loads and stores are single elements, side by side in a warp, so
//           that alignment does not matter.
// Limits:   one read of the logits from memory (the second and third come from the L1 cache), one
//           write, and two exponentials an element. At 128 x 1000 it is the launch that takes time.
//
// The other classes are summed without the label's, so that a loss and a gradient near zero keep
// their digits: both depend on the others alone. A NaN is lost in the maximum and found by the sum.
#include "device/launch.h"
#include "device/vectors.h"
#include "ops.h"
#include "warp.cuh"

namespace convnet {
namespace {

constexpr int kNarrow = 256;
constexpr int kWideWarps = kBlockThreads / kWarpLanes;

// The threads that share a row: kWarps warps, which is the block unless kWarps is 1.
template <int kWarps>
struct Team {
  static constexpr int kThreads = kWarps * kWarpLanes;
  static constexpr int kRows = kBlockThreads / kThreads;  // per block

  int row, rank;  // of this thread in its team
  void* partial;  // shared memory

  __device__ explicit Team(void* shared)
      : row(static_cast<int>(blockIdx.x * kRows + threadIdx.x / kThreads)),
        rank(static_cast<int>(threadIdx.x % kThreads)),
        partial(shared) {}

  template <class T, class Combine>
  __device__ T reduce(T value, Combine combine) const {
    if constexpr (kWarps == 1) return warp_reduce(value, combine);
    return block_reduce<kWarps>(value, static_cast<T*>(partial), combine);
  }

  template <class T>
  __device__ float max_of(const T* x, int classes) const {
    float largest = -INFINITY;
    for (int j = rank; j < classes; j += kThreads) largest = fmaxf(largest, load(x + j));
    return reduce(largest, Larger{});
  }
};

template <int kWarps, class T>
__global__ void __launch_bounds__(kBlockThreads)
    softmax_fprop_kernel(SoftmaxShape shape, const T* __restrict__ logits, T* __restrict__ probs) {
  __shared__ __align__(16) float partial[kWideWarps];
  const Team<kWarps> team(partial);
  if (team.row >= shape.n) return;  // whole warps, and never part of a team of several
  const T* x = logits + std::int64_t{team.row} * shape.classes;
  T* y = probs + std::int64_t{team.row} * shape.classes;
  const float max = team.max_of(x, shape.classes);
  float sum = 0.0f;
  for (int j = team.rank; j < shape.classes; j += team.kThreads) sum += expf(load(x + j) - max);
  const float factor = 1.0f / team.reduce(sum, Add{});
  for (int j = team.rank; j < shape.classes; j += team.kThreads) {
    store(y + j, expf(load(x + j) - max) * factor);
  }
}

// What a row whose label names no class gets.
template <int kWarps, class T>
__device__ void reject(const Team<kWarps>& team, int classes, float* loss, T* dx,
                       std::int32_t* rank) {
  if (team.rank == 0) {
    loss[team.row] = NAN;
    rank[team.row] = classes;
  }
  if (dx == nullptr) return;
  for (int j = team.rank; j < classes; j += team.kThreads) store(dx + j, NAN);
}

template <int kWarps, class T>
__global__ void __launch_bounds__(kBlockThreads)
    softmax_xent_kernel(SoftmaxShape shape, const T* __restrict__ logits,
                        const std::int32_t* __restrict__ labels, const float* __restrict__ weights,
                        float scale, float* __restrict__ loss, T* __restrict__ dlogits,
                        std::int32_t* __restrict__ rank) {
  __shared__ __align__(16) float partial[kWideWarps];
  const Team<kWarps> team(partial);
  if (team.row >= shape.n) return;  // as above
  const int classes = shape.classes, label = labels[team.row];
  const T* x = logits + std::int64_t{team.row} * classes;
  T* dx = dlogits == nullptr ? nullptr : dlogits + std::int64_t{team.row} * classes;
  if (label < 0 || label >= classes) return reject(team, classes, loss, dx, rank);

  const float max = team.max_of(x, classes);
  const float score = load(x + label);
  float others = 0.0f;
  int ahead = 0;
  for (int j = team.rank; j < classes; j += team.kThreads) {
    if (j == label) continue;
    const float other = load(x + j);
    others += expf(other - max);
    // Written as "not less", so that NaN counts against the label.
    ahead += j < label ? !(other < score) : !(other <= score);
  }
  others = team.reduce(others, Add{});
  ahead = team.reduce(ahead, Add{});
  const float own = expf(score - max);
  const float weight = weights == nullptr ? 1.0f : weights[label];
  if (team.rank == 0) {
    loss[team.row] = weight * (log1pf(others + (own - 1.0f)) - (score - max));
    rank[team.row] = ahead;
  }
  if (dx == nullptr) return;
  const float factor = scale * weight / (others + own);
  for (int j = team.rank; j < classes; j += team.kThreads) {
    store(dx + j, j == label ? -factor * others : factor * expf(load(x + j) - max));
  }
}

}  // namespace

template <class T>
void softmax_fprop(const SoftmaxShape& shape, const T* logits, T* probs, Stream stream) {
  const char* op = "softmax_fprop";
  if (shape.classes <= kNarrow) {
    launch(op, softmax_fprop_kernel<1, T>, blocks_for(shape.n, Team<1>::kRows), dim3(kBlockThreads),
           0, stream, shape, logits, probs);
  } else {
    launch(op, softmax_fprop_kernel<kWideWarps, T>, blocks_for(shape.n, 1), dim3(kBlockThreads), 0,
           stream, shape, logits, probs);
  }
}

template <class T>
void softmax_xent(const SoftmaxShape& shape, const T* logits, const std::int32_t* labels,
                  const float* weights, float scale, float* loss, T* dlogits, std::int32_t* rank,
                  Stream stream) {
  const char* op = "softmax_xent";
  if (shape.classes <= kNarrow) {
    launch(op, softmax_xent_kernel<1, T>, blocks_for(shape.n, Team<1>::kRows), dim3(kBlockThreads),
           0, stream, shape, logits, labels, weights, scale, loss, dlogits, rank);
  } else {
    launch(op, softmax_xent_kernel<kWideWarps, T>, blocks_for(shape.n, 1), dim3(kBlockThreads), 0,
           stream, shape, logits, labels, weights, scale, loss, dlogits, rank);
  }
}

CONVNET_FOR_BOTH_TYPES(softmax_fprop);
CONVNET_FOR_BOTH_TYPES(softmax_xent);

}  // namespace convnet
