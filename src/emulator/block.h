// One thread block: its threads as fibers, its warps, and the points where threads meet.
//
// Scheduling. A thread runs until it must wait for others (a barrier or a warp operation) or ends.
// Then the next ready thread of the same warp runs, and only when the warp has none, another warp:
// depth-first, so that a warp runs as far ahead of the others as the barriers allow, and a kernel
// that lacks one reads what is not there yet. `Order` picks among the ready threads; a right kernel
// gives equal bits in every order. A thread that never waits shares its stack with the next one, so
// a kernel without barriers is a plain loop over its threads.
//
// Errors. fail() notes the message and leaves the fiber for good; Block::run() then throws it on
// the host's stack. A block that cannot go on (nobody ready, somebody waiting) is reported, never
// waited for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cuda_types.h"
#include "fiber.h"

namespace convnet::emulator {

constexpr int kWarpSize = 32;
constexpr int kMaxBlockThreads = 1024;
constexpr unsigned kFullWarp = 0xffffffffu;

// Where in the source a call was written; the default argument of everything that can wait or fail.
struct CallSite {
  const char* file;
  int line;
  static constexpr CallSite here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

enum class Order { kForward, kReverse, kShuffle };

struct Schedule {
  Order order = Order::kForward;
  std::uint64_t seed = 0;
};

// What all blocks of a launch have in common.
struct Launch {
  const char* op;                    // name for messages
  CallSite where;                    // of the launch
  void (*call_kernel)(const void*);  // runs the kernel's body for the current thread
  const void* arguments;
  std::size_t argument_bytes;
  dim3 grid, block;
  std::size_t dynamic_shared_bytes;
  std::optional<std::size_t> allowed_dynamic_bytes;  // by cudaFuncSetAttribute
  int device;
  Schedule schedule;
};

// cp.async in flight: the bytes were read at issue and will be written at the wait.
struct AsyncCopy {
  void* destination;
  int bytes;
  unsigned group;
  CallSite where;
  alignas(16) unsigned char data[16];
};

class Block;
struct AsyncState;  // hopper.h
struct Warp;

// One cache line: all that a switch touches.
struct alignas(64) Thread {
  uint3 index;  // threadIdx
  int number;   // linear index in the block
  Block* block;
  Warp* warp;
  Fiber fiber;
};

// The rest of a thread, which few kernels use.
struct ThreadExtra {
  std::vector<AsyncCopy> copies;  // oldest first; those before `next_copy` are done
  std::size_t next_copy = 0;
  unsigned copy_group = 0;  // number of groups committed
};

// Runs once all lanes of a warp operation have arrived; operands[lane] is what the lane passed.
using Combine = void (*)(void* const* operands, unsigned lanes);

// A warp operation that waits for lanes.
struct Meeting {
  unsigned mask, arrived;
  bool aligned;  // needs lanes that have ended, too
  const char* operation;
  CallSite where;
  Combine combine;
};

// Sets of lanes are masks.
struct Warp {
  Thread* threads;  // lane 0
  unsigned lanes;   // those that exist
  unsigned started, ready, at_barrier, exited;

  // Lanes that a meeting still waits for.
  unsigned missing(const Meeting& meeting) const {
    return meeting.mask & ~meeting.arrived & ~(meeting.aligned ? 0 : exited);
  }

  int meeting_count;
  Meeting meetings[kWarpSize];
  void* operands[kWarpSize];  // of the lanes in meetings
};

// A __shared__ array of this block. The allocation is exact, so that AddressSanitizer sees
// overruns; without it, a canary behind the array is checked when the block ends.
struct SharedArray {
  const void* key;  // the declaration; null for the dynamic array
  const char* name;
  CallSite where;
  char* data;
  std::size_t bytes;
  std::uint64_t block_serial;  // the block it was last cleared for
};

class Block {
 public:
  Block();
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  // Runs one block to its end. Throws std::runtime_error.
  void begin(const Launch& launch);  // before the first block of a launch
  void run(std::uint64_t block_number);
  void end();  // after the last: frees shared memory

  // Called on a fiber.
  int barrier(const char* operation, int predicate, CallSite where);
  void warp_operation(const char* operation, unsigned mask, bool aligned, void* operand,
                      Combine combine, CallSite where);
  void* shared(const void* key, const char* name, std::size_t bytes, CallSite where);
  [[noreturn]] void abandon();  // leaves the current fiber after `error` was set
  void sleep();                 // until somebody calls wake() for the current thread
  void wake(Thread* thread);
  void run_threads();    // body of a fiber: this thread, then fresh ones
  ThreadExtra& extra();  // of the current thread

  const Launch* launch = nullptr;
  uint3 index{};             // blockIdx
  std::uint64_t serial = 0;  // counts the blocks run
  std::vector<SharedArray> arrays;
  AsyncState& async;
  char error[1024];
  Fiber host;
  char* signal_stack;   // for the handler of a fault
  char* landing_stack;  // for what it does about it

 private:
  void reset(std::uint64_t block_number);
  Thread* pick();
  int pick_bit(unsigned bits);
  void start(Thread* thread);
  void suspend();
  bool exit_thread();
  void release_barrier();
  void complete(Warp* warp, int meeting);
  void reclaim_stacks();
  void check_canaries();
  void check_async();
  void check_shared_bytes(std::size_t more, CallSite where);
  void report_stall();
  void describe_wait(const Thread* thread, char* text, std::size_t bytes) const;

  std::vector<Thread> threads_;
  std::vector<ThreadExtra> extras_;
  std::vector<Warp> warps_;
  std::vector<char*> free_stacks_;
  int thread_count_ = 0, warp_count_ = 0, exited_ = 0;
  bool extras_used_ = false;
  int warp_ = 0;  // the one that runs
  unsigned ready_warps_ = 0;
  Order order_ = Order::kForward;
  std::uint64_t random_ = 1;
  // The barrier under way. A result is kept for two barriers: nobody can be further behind.
  int arrived_ = 0;
  unsigned phase_ = 0;
  const Thread* first_at_barrier_ = nullptr;
  const char* barrier_operation_ = nullptr;
  CallSite barrier_where_{};
  int predicates_[2] = {0, 0};
};

inline unsigned lane_bit(const Thread* thread) { return 1u << (thread->number % kWarpSize); }

// The thread that runs on this OS thread; null on the host's stack.
extern __thread Thread* current __attribute__((tls_model("initial-exec")));

// Ends the launch with "FILE:LINE: message, in thread (x, y, z) of block (x, y, z)". On the host's
// stack it throws; on a fiber it never returns either, and Block::run() throws.
[[noreturn]] void fail(CallSite where, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

void cp_async(void* shared_destination, const void* source, int bytes, bool predicate,
              CallSite where);
void cp_async_commit();
void cp_async_wait(int groups_left);  // -1: everything, committed or not

}  // namespace convnet::emulator
