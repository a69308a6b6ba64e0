#include "launch.h"

#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "fault.h"

namespace convnet::emulator {
namespace {

// OS threads are started for a grid when the blocks that are left will take longer than this.
constexpr double kMinParallelSeconds = 200e-6;
constexpr int kMaxWorkers = 16;

std::mutex order_mutex;
bool order_is_set = false;
Schedule set_schedule;

Schedule parse_order(const std::string& text) {
  if (text == "forward") return {Order::kForward, 0};
  if (text == "reverse") return {Order::kReverse, 0};
  const std::string prefix = "shuffle:";
  if (text.compare(0, prefix.size(), prefix) == 0 && text.size() > prefix.size() &&
      text.find_first_not_of("0123456789", prefix.size()) == std::string::npos) {
    return {Order::kShuffle, std::strtoull(text.c_str() + prefix.size(), nullptr, 10)};
  }
  throw std::runtime_error(
      "CONVNET_EMULATOR_ORDER: expected forward, reverse or shuffle:SEED, got \"" + text + "\"");
}

// Blocks keep their stacks between launches; a launch borrows one for each OS thread.
class BlockPool {
 public:
  std::unique_ptr<Block> take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (idle_.empty()) return std::make_unique<Block>();
    std::unique_ptr<Block> block = std::move(idle_.back());
    idle_.pop_back();
    return block;
  }
  void give(std::unique_ptr<Block> block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(block));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Block>> idle_;
};

BlockPool& block_pool() {
  static BlockPool* pool = new BlockPool;  // never destroyed: kernels may run at exit
  return *pool;
}

// The i-th block to run: a permutation of the grid.
class BlockOrder {
 public:
  BlockOrder(const Schedule& schedule, std::uint64_t count)
      : count_(count), order_(schedule.order) {
    if (order_ != Order::kShuffle) return;
    start_ = (schedule.seed * 0x9E3779B97F4A7C15ull >> 16) % count;
    step_ = (schedule.seed * 0xD1B54A32D192ED03ull >> 16) % count | 1;
    while (greatest_common_divisor(step_, count) != 1) ++step_;
  }
  std::uint64_t operator[](std::uint64_t i) const {
    if (order_ == Order::kForward) return i;
    if (order_ == Order::kReverse) return count_ - 1 - i;
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(i) * step_ + start_) %
                                      count_);
  }

 private:
  static std::uint64_t greatest_common_divisor(std::uint64_t a, std::uint64_t b) {
    while (b != 0) {
      const std::uint64_t rest = a % b;
      a = b;
      b = rest;
    }
    return a;
  }
  std::uint64_t count_, start_ = 0, step_ = 1;
  Order order_;
};

void check_launch(const Launch& launch) {
  const dim3 g = launch.grid, b = launch.block;
  const std::uint64_t threads = std::uint64_t{b.x} * b.y * b.z;
  const auto text = [](dim3 d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) +
           ")";
  };
  std::string wrong;
  if (threads == 0 || threads > kMaxBlockThreads || b.x > 1024 || b.y > 1024 || b.z > 64) {
    wrong = "invalid block " + text(b) + ": expected 1 to 1024 threads";
  } else if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) {
    wrong = "invalid grid " + text(g) + ": expected 1 to 2147483647, 65535, 65535";
  } else if (launch.dynamic_shared_bytes > launch.allowed_dynamic_bytes.value_or(kSharedBytes)) {
    wrong = std::to_string(launch.dynamic_shared_bytes) + " bytes of dynamic shared memory, " +
            (launch.allowed_dynamic_bytes
                 ? "the kernel's attribute allows " + std::to_string(*launch.allowed_dynamic_bytes)
                 : "without cudaFuncSetAttribute the limit is " + std::to_string(kSharedBytes));
  }
  if (!wrong.empty()) {
    throw std::runtime_error(std::string(launch.where.file) + ":" +
                             std::to_string(launch.where.line) + ": " + wrong);
  }
}

// What cudaFuncSetAttribute has set, by kernel and device.
struct Allowed {
  std::mutex mutex;
  std::map<std::pair<const void*, int>, std::size_t> bytes;
};

Allowed& allowed() {
  static Allowed* all = new Allowed;
  return *all;
}

// Shared by the OS threads of one launch.
struct Progress {
  std::uint64_t count;
  std::atomic<std::uint64_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::string message;
};

// A block's stacks for this OS thread, and a signal stack: a fiber whose stack overflowed has no
// room for a fault handler.
class BorrowedBlock {
 public:
  explicit BorrowedBlock(const Launch& launch) : block_(block_pool().take()) {
    stack_t alternate{};
    alternate.ss_sp = block_->signal_stack;
    alternate.ss_size = kStackBytes;
    sigaltstack(&alternate, &previous_);
    set_landing_stack(block_->landing_stack);
    block_->begin(launch);
  }
  ~BorrowedBlock() {
    set_landing_stack(nullptr);
    sigaltstack(&previous_, nullptr);
    block_->end();
    block_pool().give(std::move(block_));
  }
  BorrowedBlock(const BorrowedBlock&) = delete;
  BorrowedBlock& operator=(const BorrowedBlock&) = delete;

  // Runs up to `limit` blocks of the grid, as long as there are any and none has failed.
  void run(const BlockOrder& order, std::uint64_t limit, Progress* progress) {
    try {
      for (; limit > 0 && !progress->failed.load(std::memory_order_relaxed); --limit) {
        const std::uint64_t i = progress->next.fetch_add(1, std::memory_order_relaxed);
        if (i >= progress->count) return;
        block_->run(order[i]);
      }
    } catch (const std::exception& exception) {
      const std::lock_guard<std::mutex> lock(progress->mutex);
      if (!progress->failed.exchange(true)) progress->message = exception.what();
    }
  }

 private:
  std::unique_ptr<Block> block_;
  stack_t previous_{};
};

// Runs the first block, and from its time decides whether the others are worth several OS threads.
void run_blocks(const Launch& launch, Progress* progress) {
  using Clock = std::chrono::steady_clock;
  const BlockOrder order(launch.schedule, progress->count);
  BorrowedBlock block(launch);
  const Clock::time_point start = Clock::now();
  block.run(order, 1, progress);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const std::uint64_t left = progress->count - 1;
  std::uint64_t helper_count = 0;
  if (static_cast<double>(left) * seconds > kMinParallelSeconds) {
    helper_count = static_cast<std::uint64_t>(worker_count()) - 1;
    if (helper_count > left - 1) helper_count = left - 1;
  }
  std::vector<std::thread> helpers;
  for (std::uint64_t i = 0; i < helper_count; ++i) {
    helpers.emplace_back([&] { BorrowedBlock(launch).run(order, progress->count, progress); });
  }
  block.run(order, progress->count, progress);
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace

void set_order(const char* order) {
  const std::lock_guard<std::mutex> lock(order_mutex);
  order_is_set = order != nullptr;
  if (order_is_set) set_schedule = parse_order(order);
}

Schedule schedule() {
  const std::lock_guard<std::mutex> lock(order_mutex);
  if (order_is_set) return set_schedule;
  const char* text = std::getenv("CONVNET_EMULATOR_ORDER");
  return text == nullptr ? Schedule{} : parse_order(text);
}

int worker_count() {
  const char* text = std::getenv("CONVNET_EMULATOR_THREADS");
  static const int cores = static_cast<int>(std::thread::hardware_concurrency());
  const int wanted = text != nullptr ? std::atoi(text) : cores;
  return wanted < 1 ? 1 : wanted > kMaxWorkers ? kMaxWorkers : wanted;
}

void allow_dynamic_shared(const void* kernel, int device, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(allowed().mutex);
  allowed().bytes[{kernel, device}] = bytes;
}

std::optional<std::size_t> allowed_dynamic_shared(const void* kernel, int device) {
  const std::lock_guard<std::mutex> lock(allowed().mutex);
  const auto found = allowed().bytes.find({kernel, device});
  if (found == allowed().bytes.end()) return std::nullopt;
  return found->second;
}

void run_grid(const Launch& launch) {
  if (current != nullptr) fail(launch.where, "a kernel cannot launch kernels");
  // One launch at a time: the protection of other devices' memory holds for the whole process.
  static std::mutex* one_launch = new std::mutex;
  const std::lock_guard<std::mutex> lock(*one_launch);
  Progress progress;
  try {
    check_launch(launch);
    install_fault_handler();
    progress.count = std::uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
    const ProtectOtherDevices protect(launch.device);
    run_blocks(launch, &progress);
  } catch (const std::exception& exception) {
    throw std::runtime_error(std::string(launch.op) + ": " + exception.what());
  }
  if (progress.failed) throw std::runtime_error(std::string(launch.op) + ": " + progress.message);
}

}  // namespace convnet::emulator
