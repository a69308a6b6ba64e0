// Softmax, and the cross-entropy loss with its gradient and the rank of the label (ops.h).
//   softmax_j = e^(x_j - max) / sum,   sum = sum_i e^(x_i - max)
//   loss = weight (log(sum) - (x_label - max)),   dlogits_j = scale weight (softmax_j - [j = label])
//
// A row is read from memory once; the later passes find it in the cache. The exponentials of a row
// are kept where a float32 result goes, or in scratch memory.
#include <vector>

#include "elementary.h"
#include "ops.h"
#include "parallel.h"

namespace convnet {
namespace {

constexpr int kLanes = 16;  // sums run in 16 interleaved parts on every machine

// A NaN may be lost here; the sum of the exponentials finds it.
template <class T>
CONVNET_INLINE float row_max(int count, const T* x) {
  float parts[kLanes];
  for (float& part : parts) part = -kInfinity;
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      parts[lane] = read(x[i + lane]) > parts[lane] ? read(x[i + lane]) : parts[lane];
    }
  }
  float best = -kInfinity;
  for (; i < count; ++i) best = read(x[i]) > best ? read(x[i]) : best;
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
template <class T>
CONVNET_INLINE float exponentials(int count, const T* x, float* result) {
  const float max = row_max(count, x);
  CONVNET_SIMD
  for (int i = 0; i < count; ++i) result[i] = fast_exp(read(x[i]) - max);
  return max;
}

template <class T>
CONVNET_INLINE void scale_row(int count, float factor, const float* x, T* y) {
  CONVNET_SIMD
  for (int i = 0; i < count; ++i) write(y + i, x[i] * factor);
}

// Classes that are not surely behind the label: before it, those not smaller; after it, those not
// smaller or equal. Written as "not less", so that NaN counts.
template <class T>
CONVNET_INLINE std::int32_t rank_of(int count, const T* x, int label) {
  const float score = read(x[label]);
  std::int32_t rank = 0;
  for (int i = 0; i < label; ++i) rank += !(read(x[i]) < score);
  for (int i = label + 1; i < count; ++i) rank += !(read(x[i]) <= score);
  return rank;
}

// Rows per task: about 8192 exponentials.
std::int64_t rows_per_task(const SoftmaxShape& shape) {
  return std::max<std::int64_t>(1, 8192 / shape.classes);
}

// Where the exponentials of a row are kept: where a float32 result goes, else in scratch memory.
float* exponentials_in(float* result, std::vector<float>& scratch) {
  return result == nullptr ? scratch.data() : result;
}
float* exponentials_in(Bfloat16*, std::vector<float>& scratch) { return scratch.data(); }

}  // namespace

template <class T>
void softmax_fprop(const SoftmaxShape& shape, const T* logits, T* probs, Stream) {
  const int classes = shape.classes;
  parallel_chunks(shape.n, rows_per_task(shape), [&](std::int64_t first, std::int64_t rows) {
    std::vector<float> scratch(static_cast<std::size_t>(classes));
    for (std::int64_t n = first; n < first + rows; ++n) {
      float* row = exponentials_in(probs + n * classes, scratch);
      vectorized<exponentials<T>>(classes, logits + n * classes, row);
      const float factor = 1.0f / vectorized<row_sum>(classes, row);
      vectorized<scale_row<T>>(classes, factor, row, probs + n * classes);
    }
  });
}

template <class T>
void softmax_xent(const SoftmaxShape& shape, const T* logits, const std::int32_t* labels,
                  const float* weights, float scale, float* loss, T* dlogits, std::int32_t* rank,
                  Stream) {
  const int classes = shape.classes;
  parallel_chunks(shape.n, rows_per_task(shape), [&](std::int64_t first, std::int64_t rows) {
    std::vector<float> scratch(static_cast<std::size_t>(classes));
    for (std::int64_t n = first; n < first + rows; ++n) {
      const T* x = logits + n * classes;
      T* gradient = dlogits == nullptr ? nullptr : dlogits + n * classes;
      float* row = exponentials_in(gradient, scratch);
      const std::int32_t label = labels[n];
      if (label < 0 || label >= classes) {
        loss[n] = kNan;
        rank[n] = classes;
        for (int i = 0; gradient != nullptr && i < classes; ++i) write(gradient + i, kNan);
        continue;
      }
      const float max = vectorized<exponentials<T>>(classes, x, row);
      // The other classes are summed without the label's, so that a loss and a gradient near zero
      // keep their digits: both depend on the others alone.
      const float own = row[label];
      row[label] = 0.0f;
      const float others = vectorized<row_sum>(classes, row);
      const float weight = weights == nullptr ? 1.0f : weights[label];
      loss[n] = weight * (std::log1p(others + (own - 1.0f)) - (read(x[label]) - max));
      rank[n] = vectorized<rank_of<T>>(classes, x, label);
      if (gradient == nullptr) continue;
      const float factor = scale * weight / (others + own);
      vectorized<scale_row<T>>(classes, factor, row, gradient);
      write(gradient + label, -factor * others);
    }
  });
}

CONVNET_FOR_BOTH_TYPES(softmax_fprop);
CONVNET_FOR_BOTH_TYPES(softmax_xent);

}  // namespace convnet
