// Parallel loops whose results do not depend on the number of threads.
//
// Work is cut into tasks by its shape alone, never by the number of threads, and every output
// element is written by one task. Which thread runs a task then changes nothing, to the bit.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops.h"

namespace convnet {

// Elements per task of an elementwise operation: 128 KiB, some ten microseconds of work. Smaller
// operations run on the calling thread, which costs less than waking another.
constexpr std::int64_t kChunk = 32768;

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// task(i) for i in [0, tasks). A task must not throw.
template <class Task>
void parallel_for(std::int64_t tasks, const Task& task) {
  const int threads = thread_count();
  if (tasks <= 1 || threads <= 1) {
    for (std::int64_t i = 0; i < tasks; ++i) task(i);
    return;
  }
  // Always the same number of threads: libgomp ends and restarts threads when it changes.
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t i = 0; i < tasks; ++i) task(i);
}

// task(begin, size) for consecutive pieces of [0, count).
template <class Task>
void parallel_chunks(std::int64_t count, std::int64_t chunk, const Task& task) {
  parallel_for(ceil_div(count, chunk), [&](std::int64_t i) {
    const std::int64_t begin = i * chunk;
    task(begin, std::min(chunk, count - begin));
  });
}

}  // namespace convnet
