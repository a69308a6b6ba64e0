// The gradient of a bias: db[k] = the sum of dy over rows. Partial sums of fixed pieces, then those in order.
#pragma once

#include <cstring>

#include "elements.h"
#include "parallel.h"

namespace convnet {

constexpr int kRowsAtOnce = 512;

template <class T>
CONVNET_INLINE void add_rows(const T* rows, int count, int columns, float* sum) {
  for (int i = 0; i < count; ++i) {
    const T* row = rows + std::int64_t{i} * columns;
    CONVNET_SIMD
    for (int j = 0; j < columns; ++j) sum[j] += read(row[j]);
  }
}

// Of `partial`.
inline std::size_t row_sums_bytes(std::int64_t rows, int k) {
  return static_cast<std::size_t>(ceil_div(rows, kRowsAtOnce) * k) * sizeof(float);
}

template <class T>
void sum_rows(const T* dy, std::int64_t rows, int k, float* partial, float* db) {
  const std::size_t bytes = static_cast<std::size_t>(k) * sizeof(float);
  parallel_chunks(rows, kRowsAtOnce, [&](std::int64_t begin, std::int64_t count) {
    float* sum = partial + begin / kRowsAtOnce * k;
    std::memset(sum, 0, bytes);
    vectorized<add_rows<T>>(dy + begin * k, static_cast<int>(count), k, sum);
  });
  std::memset(db, 0, bytes);
  vectorized<add_rows<float>>(partial, static_cast<int>(ceil_div(rows, kRowsAtOnce)), k, db);
}

}  // namespace convnet
