// What the operations by oneDNN share: its engine, a cache of prepared primitives, scratch memory
// handed out from the caller's workspace, and loops over its single-threaded products.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "ops.h"
#include "parallel.h"

namespace convnet {

inline const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

inline dnnl::stream& cpu_stream() {
  thread_local dnnl::stream stream(cpu_engine());
  return stream;
}

// What `precision` allows oneDNN; reduced.h says where it makes use of that.
inline dnnl::fpmath_mode fpmath_mode(Precision precision) {
  if (precision == Precision::kTf32) return dnnl::fpmath_mode::tf32;
  if (precision == Precision::kBf16) return dnnl::fpmath_mode::bf16;
  return dnnl::fpmath_mode::strict;
}

// oneDNN is told to take its scratch memory from us, so that a step allocates nothing.
// |y min(1, max(0, y / the least normal number))|: max(0, y), but NaN for NaN and for -infinity.
// oneDNN's own ReLU makes them 0 in most implementations, which hides that a net has diverged.
inline dnnl::post_ops relu_that_keeps_nan() {
  dnnl::post_ops ops;
  ops.append_eltwise(dnnl::algorithm::eltwise_hardswish, std::numeric_limits<float>::max(), 0.0f);
  ops.append_eltwise(dnnl::algorithm::eltwise_abs, 0.0f, 0.0f);
  return ops;
}

inline dnnl::primitive_attr user_scratchpad(Precision precision, bool relu = false) {
  dnnl::primitive_attr attr;
  attr.set_fpmath_mode(fpmath_mode(precision));
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (relu) {
    attr.set_post_ops(relu_that_keeps_nan());
  }
  return attr;
}

// Held while oneDNN prepares something, and during a fork (fork.cpp): the child would find locks of
// oneDNN's closed for ever. Never destroyed, as processes fork in their last moments too.
inline std::mutex& plan_mutex() {
  static std::mutex* const mutex = new std::mutex;
  return *mutex;
}

// Prepared primitives by what they were prepared for. Preparing generates machine code (about a
// millisecond); a net asks for the same few dozen again and again.
template <class Plan>
class PlanCache {
 public:
  using Key = std::vector<int>;

  template <class Make>
  std::shared_ptr<const Plan> get(Key key, Make make) {
    // oneDNN divides the work when it prepares, by the calling thread's OpenMP setting, and relies
    // on as many threads when it computes. Within somebody's parallel region there is one.
    const int threads = omp_in_parallel() ? 1 : thread_count();
    omp_set_num_threads(threads);
    key.push_back(threads);
    std::lock_guard<std::mutex> lock(plan_mutex());
    auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
    if (plans_.size() >= kCapacity) plans_.clear();  // holders keep theirs alive
    std::shared_ptr<const Plan> plan = make();
    plans_.emplace(std::move(key), plan);
    return plan;
  }

 private:
  static constexpr std::size_t kCapacity = 512;
  std::map<Key, std::shared_ptr<const Plan>> plans_;
};

// While it lives, what this thread prepares and runs of oneDNN keeps to this thread.
class OneThread {
 public:
  OneThread() { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  const int before_ = omp_get_max_threads();
};

// parallel_for over tasks that run oneDNN, which keeps to the thread of each: how it divides work,
// and with it the rounding, depends on the number of threads that it has. These tasks may throw.
template <class Task>
void parallel_single_threaded(std::int64_t tasks, const Task& task) {
  std::mutex mutex;
  std::exception_ptr failure;
  parallel_for(tasks, [&](std::int64_t i) {
    const OneThread alone;
    try {
      task(i);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

// Hands out 64-byte aligned pieces of a workspace, in order.
class Scratch {
 public:
  Scratch(const char* op, Workspace workspace) : op_(op), left_(workspace.bytes) {
    next_ = static_cast<char*>(workspace.data);
  }

  static std::int64_t padded(std::size_t bytes) {
    return bytes == 0 ? 0 : static_cast<std::int64_t>(bytes) + 2 * kAlign;
  }

  // `count` numbers, and what they take of the workspace.
  template <class T>
  T* take_array(std::int64_t count) {
    return static_cast<T*>(take(static_cast<std::size_t>(count) * sizeof(T)));
  }
  template <class T>
  static std::int64_t array_bytes(std::int64_t count) {
    return padded(static_cast<std::size_t>(count) * sizeof(T));
  }

  void* take(std::size_t bytes) {
    if (bytes == 0) return nullptr;
    const auto skip = (kAlign - reinterpret_cast<std::uintptr_t>(next_) % kAlign) % kAlign;
    const auto need = static_cast<std::int64_t>(skip + bytes);
    if (next_ == nullptr || need > left_) {
      throw std::invalid_argument(std::string(op_) + ": workspace: expected " +
                                  std::to_string(need - left_) + " more bytes");
    }
    char* piece = next_ + skip;
    next_ += need;
    left_ -= need;
    return piece;
  }

  Workspace rest() const { return {next_, left_}; }

 private:
  static constexpr std::size_t kAlign = 64;
  const char* op_;
  char* next_;
  std::int64_t left_;
};

inline dnnl::memory memory_at(const dnnl::memory::desc& desc, const void* data) {
  return dnnl::memory(desc, cpu_engine(), const_cast<void*>(data));
}

// dx = 0 where mask <= 0: the backward pass of the ReLU that made `mask`.
template <class T>
void apply_relu_mask(std::int64_t count, const T* mask, T* dx) {
  if (mask == nullptr) return;
  activation_bprop(Activation::kRelu, 0.0f, 0.0f, count, mask, dx, dx, nullptr);
}

}  // namespace convnet
