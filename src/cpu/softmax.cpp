// Softmax, and the cross-entropy loss with its gradient and the rank of the label (ops.h).
//   softmax_j = e^(x_j - max) / sum,   sum = sum_i e^(x_i - max)
//   loss = log(sum) - (x_label - max),   dlogits_j = scale * (softmax_j - [j = label])
//
// A row is read from memory once; the later passes find it in the cache. The exponentials of a row
// are kept where the result goes, or in scratch memory when no result is asked for.
#include <vector>

#include "elementary.h"
#include "ops.h"
#include "parallel.h"

namespace convnet {
namespace {

constexpr int kLanes = 16;  // sums run in 16 interleaved parts on every machine

// A NaN may be lost here; the sum of the exponentials finds it.
CONVNET_INLINE float row_max(int count, const float* x) {
  float parts[kLanes];
  for (float& part : parts) part = -kInfinity;
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      parts[lane] = x[i + lane] > parts[lane] ? x[i + lane] : parts[lane];
    }
  }
  float best = -kInfinity;
  for (; i < count; ++i) best = x[i] > best ? x[i] : best;
  for (float part : parts) best = part > best ? part : best;
  return best;
}

CONVNET_INLINE float row_sum(int count, const float* x) {
  float parts[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) parts[lane] += x[i + lane];
  }
  for (int lane = 0; i + lane < count; ++lane) parts[lane] += x[i + lane];
  float sum = 0.0f;
  for (float part : parts) sum += part;
  return sum;
}

// result[j] = e^(x[j] - max); returns max.
CONVNET_INLINE float exponentials(int count, const float* x, float* result) {
  const float max = row_max(count, x);
  CONVNET_SIMD
  for (int i = 0; i < count; ++i) result[i] = fast_exp(x[i] - max);
  return max;
}

CONVNET_INLINE void scale_row(int count, float factor, float* x) {
  for (int i = 0; i < count; ++i) x[i] *= factor;
}

// Classes that are not surely behind the label: before it, those not smaller; after it, those not
// smaller or equal. Written as "not less", so that NaN counts.
CONVNET_INLINE std::int32_t rank_of(int count, const float* x, int label) {
  const float score = x[label];
  std::int32_t rank = 0;
  for (int i = 0; i < label; ++i) rank += !(x[i] < score);
  for (int i = label + 1; i < count; ++i) rank += !(x[i] <= score);
  return rank;
}

// Rows per task: about 8192 exponentials.
std::int64_t rows_per_task(const SoftmaxShape& shape) {
  return std::max<std::int64_t>(1, 8192 / shape.classes);
}

}  // namespace

void softmax_fprop(const SoftmaxShape& shape, const float* logits, float* probs, Stream) {
  parallel_chunks(shape.n, rows_per_task(shape), [&](std::int64_t first, std::int64_t rows) {
    for (std::int64_t n = first; n < first + rows; ++n) {
      float* row = probs + n * shape.classes;
      vectorized<exponentials>(shape.classes, logits + n * shape.classes, row);
      vectorized<scale_row>(shape.classes, 1.0f / vectorized<row_sum>(shape.classes, row), row);
    }
  });
}

void softmax_xent(const SoftmaxShape& shape, const float* logits, const std::int32_t* labels,
                  float scale, float* loss, float* dlogits, std::int32_t* rank, Stream) {
  const int classes = shape.classes;
  parallel_chunks(shape.n, rows_per_task(shape), [&](std::int64_t first, std::int64_t rows) {
    std::vector<float> scratch(dlogits == nullptr ? static_cast<std::size_t>(classes) : 0);
    for (std::int64_t n = first; n < first + rows; ++n) {
      const float* x = logits + n * classes;
      float* row = dlogits == nullptr ? scratch.data() : dlogits + n * classes;
      const std::int32_t label = labels[n];
      if (label < 0 || label >= classes) {
        loss[n] = kNan;
        rank[n] = classes;
        if (dlogits != nullptr) std::fill(row, row + classes, kNan);
        continue;
      }
      const float max = vectorized<exponentials>(classes, x, row);
      // The other classes are summed without the label's, so that a loss and a gradient near zero
      // keep their digits: both depend on the others alone.
      const float own = row[label];
      row[label] = 0.0f;
      const float others = vectorized<row_sum>(classes, row);
      loss[n] = std::log1p(others + (own - 1.0f)) - (x[label] - max);
      rank[n] = vectorized<rank_of>(classes, x, label);
      if (dlogits == nullptr) continue;
      const float factor = scale / (others + own);
      vectorized<scale_row>(classes, factor, row);
      row[label] = -factor * others;
    }
  });
}

}  // namespace convnet
