// The update rule of the paper, section 5, for all parameters at once:
//   v = momentum v - weight_decay decay_mult lr lr_mult w - lr lr_mult g;   w = w + v
//
// Tensors:  w, velocity [count] read and written, grad [count] read, for each parameter.
// Mapping:  a block takes kTile neighbouring elements of one tensor; the blocks of all tensors
//           follow each other in one grid, and a block finds its tensor by bisection in a table of
//           first blocks. A thread takes four elements at a time with 128-bit accesses; the last
//           count % 4, and all of a tensor that is not aligned to 16 bytes, singly. No shared
//           memory, no barriers.
// Launches: the table travels by value in the kernel's parameters, since nothing may be allocated
//           and a host array may be gone before the kernel runs. They hold kTableSize tensors (the
//           paper's net has 16); more take a launch for every kTableSize.
// Limits:   12 bytes read and 8 written per parameter, 5 operations: limited by memory.
#include "device/launch.h"
#include "device/vectors.h"
#include "floats.cuh"
#include "ops.h"
#include "update.cuh"
#include "warp.cuh"

namespace convnet {
namespace {

constexpr int kTableSize = 64;  // 48 bytes each; kernel parameters may take 4096 bytes in all
constexpr int kTile = 4096;     // elements per block

struct Entry {
  float* w;
  float* velocity;
  const float* grad;
  unsigned first_block, count;
  float lr_mult, decay_mult;
  unsigned number;
};

struct Table {
  Entry entries[kTableSize];
  int size;
  float lr, momentum, weight_decay;
  const float* rates;
};

// The entry that a block works on: the last one whose first block is not after it.
__device__ int find_entry(const Table& table, unsigned block) {
  int low = 0, high = table.size;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (table.entries[middle].first_block <= block) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Returns whether all was finite.
template <int kCount>
__device__ bool update(const Entry& entry, const UpdateFactors& by, unsigned i) {
  const Floats<kCount> grad = load_floats<kCount>(entry.grad + i);
  Floats<kCount> velocity = load_floats<kCount>(entry.velocity + i);
  Floats<kCount> w = load_floats<kCount>(entry.w + i);
  bool finite = true;
  for (int t = 0; t < kCount; ++t) finite &= update_value(by, grad.v[t], &velocity.v[t], &w.v[t]);
  store_floats(entry.velocity + i, velocity);
  store_floats(entry.w + i, w);
  return finite;
}

__global__ void __launch_bounds__(kBlockThreads)
    sgd_update_kernel(const Table table, StepState* state) {
  const Entry entry = table.entries[find_entry(table, blockIdx.x)];
  const SgdRule rule{table.lr,         table.momentum, table.weight_decay, entry.lr_mult,
                     entry.decay_mult, entry.number,   table.rates,        state};
  UpdateFactors by;
  if (!update_factors(rule, &by)) return;
  const unsigned begin = (blockIdx.x - entry.first_block) * kTile;
  const unsigned end = min(begin + kTile, entry.count);
  const bool aligned = aligned16(entry.w) && aligned16(entry.velocity) && aligned16(entry.grad);
  const unsigned fours_end = aligned ? begin + (end - begin) / 4 * 4 : begin;
  bool finite = true;
  for (unsigned i = begin + 4 * threadIdx.x; i < fours_end; i += 4 * kBlockThreads) {
    finite &= update<4>(entry, by, i);
  }
  for (unsigned i = fours_end + threadIdx.x; i < end; i += kBlockThreads) {
    finite &= update<1>(entry, by, i);
  }
  if (!finite) note_diverged(rule);
}

}  // namespace

void sgd_update(const SgdTensor* tensors, int tensor_count, float lr, float momentum,
                float weight_decay, const float* rates, StepState* state, Stream stream) {
  for (int first = 0; first < tensor_count; first += kTableSize) {
    Table table{};
    table.size = tensor_count - first < kTableSize ? tensor_count - first : kTableSize;
    table.lr = lr;
    table.momentum = momentum;
    table.weight_decay = weight_decay;
    table.rates = rates;
    unsigned blocks = 0;
    for (int t = 0; t < table.size; ++t) {
      const SgdTensor& tensor = tensors[first + t];
      table.entries[t] = {tensor.w,
                          tensor.velocity,
                          tensor.grad,
                          blocks,
                          static_cast<unsigned>(tensor.count),
                          tensor.lr_mult,
                          tensor.decay_mult,
                          tensor.number};
      blocks += blocks_for(tensor.count, kTile).x;
    }
    launch("sgd_update", sgd_update_kernel, dim3(blocks), dim3(kBlockThreads), 0, stream, table,
           state);
  }
}

}  // namespace convnet
