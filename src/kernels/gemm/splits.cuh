// Split-K: a product with few tiles and a long sum is split along k over several blocks.
//
// Each split writes its sums to the workspace, laid out as the result is, and they are added in the
// order of k; where there is one split, the product's kernel finishes the result by itself. Both do
// the same to a sum (epilogue.cuh), so a result does not depend on where it was finished.
#pragma once

#include <type_traits>

#include "epilogue.cuh"
#include "kernels/device/launch.h"
#include "plan.cuh"

namespace convnet {

// So many floats of the workspace, aligned to 16 bytes; null for none. Throws std::invalid_argument
// when it is too small.
float* floats_in(OpName op, std::int64_t floats, Workspace workspace);

// Where the kernel of a product writes: the results, or with splits the first split's sums of them,
// each followed by the next split's.
struct SplitSums {
  float* partials = nullptr;  // null: one split
  float* bias_partials = nullptr;

  SplitSums(OpName op, const GemmPlan& plan, Workspace workspace)
      : partials(floats_in(op, plan.split_floats(), workspace)) {
    if (partials != nullptr) bias_partials = partials + plan.splits * plan.outputs;
  }
  bool split() const { return partials != nullptr; }
  template <class T>
  Destination<T> destination(T* result) const {
    if constexpr (std::is_same_v<T, float>)
      return {split() ? partials : result};
    else
      return {result, partials};
  }
  // Of db, which may be null.
  float* bias_out(float* db) const { return split() && db != nullptr ? bias_partials : db; }
};

// out[i] = finish(sum over splits of partials[split][i]), i < count; `channels` is the length of
// the last dimension.
template <class T>
struct SplitResult {
  const float* partials;
  unsigned splits;
  std::int64_t count, channels;
  T* out;  // null: nothing to do
  Epilogue<T> epilogue;
};

// One result, or two in one launch. In splits.cu.
template <class T>
void sum_splits(OpName op, const SplitResult<T>& result, Stream stream);
void sum_splits(OpName op, const SplitResult<float>& first, const SplitResult<float>& second,
                Stream stream);

// The same for out [count / channels, channels], and then dropout of it.
struct DropoutDraw;
template <class T>
void sum_splits_and_drop(OpName op, const SplitResult<T>& result, const DropoutDraw& draw,
                         Stream stream);

}  // namespace convnet
